"""Sentences about two images: NLVR2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lavis_lite.common.registry import registry
from lavis_lite.datasets.annotations import Records
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder
from lavis_lite.datasets.nlvr import NLVRDataset, NLVREvalDataset, check_pairs


@registry.register_builder("nlvr")
class NLVRBuilder(BaseDatasetBuilder):
    """NLVR2: two photographs, and a sentence that is true of them or not."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "nlvr"}
    train_dataset_cls = NLVRDataset
    eval_dataset_cls = NLVREvalDataset

    def check_records(self, records: Records, is_train: bool) -> list[dict[str, Any]]:
        """Return records with "images", "sentence" and "label"."""
        return check_pairs(records)
