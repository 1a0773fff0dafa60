"""Image-text retrieval: COCO and Flickr30k."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from lavis_lite.common.registry import registry
from lavis_lite.datasets.annotations import check_caption_records, read_records
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder
from lavis_lite.datasets.retrieval import RetrievalDataset, RetrievalEvalDataset


class RetrievalBuilder(BaseDatasetBuilder):
    """Training files list one text an entry, evaluation files one image with all its texts."""

    train_dataset_cls = RetrievalDataset
    eval_dataset_cls = RetrievalEvalDataset

    def read(self, files: list[Path], is_train: bool) -> list[dict[str, Any]]:
        """Return the checked annotations of all files."""
        captions = "one" if is_train else "any"
        return [record for path in files for record in check_caption_records(read_records(path), captions)]


@registry.register_builder("coco_retrieval")
class COCORetrievalBuilder(RetrievalBuilder):
    """COCO, Karpathy split."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "coco_retrieval"}


@registry.register_builder("flickr30k")
class Flickr30kBuilder(RetrievalBuilder):
    """Flickr30k, Karpathy split."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "flickr30k"}
