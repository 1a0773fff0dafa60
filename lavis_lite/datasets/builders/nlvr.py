"""Sentences about two images: NLVR2 and the drawn scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lavis_lite.common.registry import registry
from lavis_lite.datasets.annotations import read_records
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder
from lavis_lite.datasets.builders.shapes_drawn import DrawnBuilder, DrawnConfig
from lavis_lite.datasets.nlvr import NLVRDataset, NLVREvalDataset, check_pairs
from lavis_lite.datasets.shapes.write_nlvr import NLVRSettings, write_nlvr


@registry.register_builder("nlvr")
class NLVRBuilder(BaseDatasetBuilder):
    """NLVR2: two photographs, and a sentence that is true of them or not."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "nlvr"}
    train_dataset_cls = NLVRDataset
    eval_dataset_cls = NLVREvalDataset

    def read(self, files: list[Path], is_train: bool) -> list[dict[str, Any]]:
        """Return the checked pairs of all files."""
        return [record for path in files for record in check_pairs(read_records(path))]


@registry.register_builder("shapes_nlvr")
class ShapesNLVRBuilder(DrawnBuilder, NLVRBuilder):
    """Sentences about two drawn scenes."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "shapes_nlvr"}
    drawn_name = "shapes_nlvr"
    settings_class = NLVRSettings
    write = staticmethod(write_nlvr)
    files = ("shapes_nlvr_{split}.json",)

    @dataclass
    class Config(NLVRSettings, DrawnConfig, NLVRBuilder.Config):
        """What is drawn and said, and where."""

        def check(self) -> list[tuple[str, str]]:
            """Return complaints about values that cannot be."""
            return NLVRSettings.check(self)

    config: Config
