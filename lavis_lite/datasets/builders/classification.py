"""Labels: folders of images, and SNLI-VE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lavis_lite.common.registry import registry
from lavis_lite.datasets.annotations import Records
from lavis_lite.datasets.base_dataset import BaseDataset
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder
from lavis_lite.datasets.classification import ClassificationDataset, check_labels, labeled_folders


class ClassificationBuilder(BaseDatasetBuilder):
    """Records with an image and a label.

    Attributes:
        has_text: whether records have a sentence, too.
    """

    has_text: ClassVar[bool] = False

    @dataclass
    class Config(BaseDatasetBuilder.Config):
        """Settings of a data set of labels.

        Attributes:
            classes: names of the labels, in the order of their numbers.
        """

        classes: list[str] = field(default_factory=list)

    config: Config

    def class_names(self) -> list[str]:
        """Return the names of the classes, by number."""
        return self.config.classes

    def dataset(self, records: list[dict[str, Any]], image_root: Path, is_train: bool) -> BaseDataset:
        """Return the data set of checked records."""
        processors = self.processors(is_train)
        return ClassificationDataset(records, image_root, *processors, classes=self.class_names())

    def check_records(self, records: Records, is_train: bool) -> list[dict[str, Any]]:
        """Return records with "image", "label" as a number, and "sentence" if `has_text`."""
        return check_labels(records, self.class_names(), self.has_text)


@registry.register_builder("snli_ve")
class SNLIVisualEntailmentBuilder(ClassificationBuilder):
    """Whether a sentence follows from a photograph, contradicts it, or neither."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "snli_ve"}
    has_text = True


@registry.register_builder("imagenet")
class ImageNetBuilder(ClassificationBuilder):
    """ImageNet, or any folder with one folder for each split and in it one for each class."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "imagenet"}

    def splits(self) -> list[str]:
        """Return the splits that have a folder."""
        root = self.image_root()
        return [name for name in ("train", "val", "test") if (root / name).is_dir()]

    def build(self, split: str) -> BaseDataset:
        """Return one split; classes are numbered as in "train", even if the split lacks some of them."""
        self.check_split(split)
        root = self.image_root() / split
        records, names = labeled_folders(root)
        trained = self.image_root() / "train"
        classes = labeled_folders(trained)[1] if trained.is_dir() and split != "train" else names
        if classes != names:
            named = [{"image": record["image"], "label": names[record["label"]]} for record in records]
            records = check_labels(Records(root, named), classes, with_text=False)
        return ClassificationDataset(records, root, *self.processors(split == "train"), classes=classes)
