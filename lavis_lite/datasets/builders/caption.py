"""Caption data sets whose files have the layout of COCO's Karpathy split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch.utils.data import Dataset

from lavis_lite.common.registry import registry
from lavis_lite.datasets.annotations import check_caption_records, read_records
from lavis_lite.datasets.annotations.parquet_files import STORED_KEY
from lavis_lite.datasets.base_dataset import BaseDataset
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder
from lavis_lite.datasets.caption import CaptionDataset, CaptionEvalDataset, NoCapsEvalDataset


class CaptionBuilder(BaseDatasetBuilder):
    """Training files list one caption an entry, evaluation files one image an entry."""

    train_dataset_cls = CaptionDataset
    eval_dataset_cls = CaptionEvalDataset

    @dataclass
    class Config(BaseDatasetBuilder.Config):
        """Settings of a caption data set.

        Attributes:
            captions_per_image: train on so many captions of an image at once; None for one by one.
        """

        captions_per_image: int | None = None

        def check(self) -> list[tuple[str, str]]:
            """Return complaints about values that cannot be."""
            if self.captions_per_image is not None and self.captions_per_image < 1:
                return [("captions_per_image", "must be at least 1; leave it out for one caption an item.")]
            return []

    config: Config

    def build(self, split: str) -> Dataset:
        """Return one split."""
        self.check_split(split)
        is_train = split == "train"
        root = self.image_root()
        annotations = self.read(self.annotation_files(split), is_train)
        annotations, missing = self.locate_images(annotations, root, split)
        dataset = self.dataset(annotations, root, is_train)
        dataset.missing_images = missing
        return dataset

    def dataset(self, annotations: list[dict[str, Any]], image_root: Path, is_train: bool) -> BaseDataset:
        """Return the data set of checked annotations."""
        processors = self.processors(is_train)
        if is_train:
            dataset = self.train_dataset_cls(
                annotations, image_root, *processors, captions_per_image=self.config.captions_per_image
            )
        else:
            dataset = self.eval_dataset_cls(annotations, image_root, *processors)
        dataset.stored_images = {r["image"]: r[STORED_KEY] for r in annotations if STORED_KEY in r}
        return dataset

    def read(self, files: list[Path], is_train: bool) -> list[dict[str, Any]]:
        """Return the checked annotations of all files."""
        captions = "one" if is_train else "optional"
        return [record for path in files for record in check_caption_records(read_records(path), captions)]


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
