"""Caption data sets whose files have the layout of COCO's Karpathy split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lavis_lite.common.registry import registry
from lavis_lite.datasets.annotations import Records, check_caption_records
from lavis_lite.datasets.annotations.parquet_files import STORED_KEY
from lavis_lite.datasets.base_dataset import BaseDataset
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder
from lavis_lite.datasets.caption import CaptionDataset, CaptionEvalDataset, NoCapsEvalDataset


class CaptionBuilder(BaseDatasetBuilder):
    """Training files have one caption per entry, evaluation files one image per entry."""

    train_dataset_cls: ClassVar[type[CaptionDataset]] = CaptionDataset
    eval_dataset_cls: ClassVar[type[CaptionEvalDataset]] = CaptionEvalDataset

    @dataclass
    class Config(BaseDatasetBuilder.Config):
        """Settings of a caption data set.

        Attributes:
            captions_per_image: number of captions of an image in a training item; None for one item per
                caption.
        """

        captions_per_image: int | None = None

        def check(self) -> list[tuple[str, str]]:
            """Return the key and the error of each invalid value."""
            if self.captions_per_image is not None and self.captions_per_image < 1:
                return [("captions_per_image", "must be at least 1; leave it out for one caption an item.")]
            return []

    config: Config

    def dataset(self, records: list[dict[str, Any]], image_root: Path, is_train: bool) -> BaseDataset:
        """Return the data set of checked records."""
        dataset: BaseDataset
        if is_train:
            dataset = self.train_dataset_cls(
                records, image_root, *self.processors(True), captions_per_image=self.config.captions_per_image
            )
        else:
            dataset = self.eval_dataset_cls(records, image_root, *self.processors(False))
        dataset.stored_images = {r["image"]: r[STORED_KEY] for r in records if STORED_KEY in r}
        return dataset

    def check_records(self, records: Records, is_train: bool) -> list[dict[str, Any]]:
        """Return records with "image" and "caption": a text in training, else a list that may be empty."""
        return check_caption_records(records, "one" if is_train else "optional")


@registry.register_builder("coco_caption")
class COCOCapBuilder(CaptionBuilder):
    """COCO captions, Karpathy split."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "coco_caption"}


@registry.register_builder("flickr30k_caption")
class Flickr30kCapBuilder(CaptionBuilder):
    """Flickr30k captions, Karpathy split."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "flickr30k_caption"}


@registry.register_builder("nocaps")
class NoCapsBuilder(CaptionBuilder):
    """NoCaps: objects that COCO's captions do not name; only to evaluate."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "nocaps"}
    eval_dataset_cls = NoCapsEvalDataset


@registry.register_builder("vg_caption")
class VGCaptionBuilder(CaptionBuilder):
    """Visual Genome's region descriptions, as captions."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "vg_caption"}


@registry.register_builder("sbu_caption")
class SBUCaptionBuilder(CaptionBuilder):
    """SBU captions: a million photographs and what their owners wrote."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "sbu_caption"}


@registry.register_builder("conceptual_caption_3m")
class ConceptualCaption3MBuilder(CaptionBuilder):
    """Conceptual Captions, three million."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "conceptual_caption_3m"}


@registry.register_builder("conceptual_caption_12m")
class ConceptualCaption12MBuilder(CaptionBuilder):
    """Conceptual 12M."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "conceptual_caption_12m"}


@registry.register_builder("capfilt14m")
class CapFilt14MBuilder(CaptionBuilder):
    """CapFilt's output, released by BLIP's authors: a list of {url, caption}, once its images are fetched."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "capfilt14m"}
