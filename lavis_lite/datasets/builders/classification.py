"""Labels: folders of images, and SNLI-VE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch.utils.data import Dataset

from lavis_lite.common.registry import registry
from lavis_lite.datasets.annotations import Records, read_records
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder
from lavis_lite.datasets.classification import ClassificationDataset, check_labels, labeled_folders


class ClassificationBuilder(BaseDatasetBuilder):
    """Records with an image and a label, and a sentence where `has_text`."""

    has_text: ClassVar[bool] = False

    @dataclass
    class Config(BaseDatasetBuilder.Config):
        """Settings.

        Attributes:
            classes: names of the labels, in the order of their numbers.
        """

        classes: list[str] = field(default_factory=list)

    config: Config

    def class_names(self) -> list[str]:
        """Return the names of the classes, by number."""
        return self.config.classes

    def build(self, split: str) -> Dataset:
        """Return one split."""
        self.check_split(split)
        is_train = split == "train"
        root = self.image_root()
        records = self.read(self.annotation_files(split), is_train)
        records, missing = self.locate_images(records, root, split)
        dataset = ClassificationDataset(records, root, *self.processors(is_train), classes=self.class_names())
        dataset.missing_images = missing
        return dataset

    def read(self, files: list[Path], is_train: bool) -> list[dict[str, Any]]:
        """Return the checked records of all files."""
        return [
            record
            for path in files
            for record in check_labels(read_records(path), self.class_names(), self.has_text)
        ]


@registry.register_builder("snli_ve")
class SNLIVisualEntailmentBuilder(ClassificationBuilder):
    """Whether a sentence follows from a photograph, contradicts it, or neither."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "snli_ve"}
    has_text = True


@registry.register_builder("imagenet")
class ImageNetBuilder(ClassificationBuilder):
    """A folder a split (``train``, ``val``), in each one folder a class: ImageNet, or images of your own."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "imagenet"}

    def splits(self) -> list[str]:
        """Return the folders that there are."""
        root = self.image_root()
        return [name for name in ("train", "val", "test") if (root / name).is_dir()]

    def build(self, split: str) -> Dataset:
        """Return one split; classes are numbered as in "train", whatever the split has of them."""
        self.check_split(split)
        root = self.image_root() / split
        records, names = labeled_folders(root)
        trained = self.image_root() / "train"
        classes = labeled_folders(trained)[1] if trained.is_dir() and split != "train" else names
        if classes != names:
            named = [{"image": record["image"], "label": names[record["label"]]} for record in records]
            records = check_labels(Records(root, named), classes, with_text=False)
        return ClassificationDataset(records, root, *self.processors(split == "train"), classes=classes)
