"""Image-text retrieval: COCO and Flickr30k."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lavis_lite.common.registry import registry
from lavis_lite.datasets.annotations import Records, check_caption_records
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder
from lavis_lite.datasets.retrieval import RetrievalDataset, RetrievalEvalDataset


class RetrievalBuilder(BaseDatasetBuilder):
    """Training files have one text per entry, evaluation files one image with all its texts."""

    train_dataset_cls: ClassVar[type[RetrievalDataset]] = RetrievalDataset
    eval_dataset_cls: ClassVar[type[RetrievalEvalDataset]] = RetrievalEvalDataset

    def check_records(self, records: Records, is_train: bool) -> list[dict[str, Any]]:
        """Return records with "image" and "caption": a text in training, else a list."""
        return check_caption_records(records, "one" if is_train else "any")


@registry.register_builder("coco_retrieval")
class COCORetrievalBuilder(RetrievalBuilder):
    """COCO, Karpathy split."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "coco_retrieval"}


@registry.register_builder("flickr30k")
class Flickr30kBuilder(RetrievalBuilder):
    """Flickr30k, Karpathy split."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "flickr30k"}
