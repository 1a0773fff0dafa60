"""Drawn images with one class each.

====================================================  ===========================================
``annotations/shapes_classification_train.json``      one ``{"image", "label"}`` an image, the label
                                                      being a class's name; val and test too
``annotations/classes.json``                          the classes' names, in the order of their numbers
``scenes/train.jsonl``                                what each image shows; val and test too
``images/train/000040000000.jpg``                     the images
====================================================  ===========================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .classes import LABELS, Label, class_names, class_of
from .pictures import SPLITS, draw_pictures, numbers_of
from .write_once import DrawnSettings, check_sizes, write_json


@dataclass
class ClassificationSettings(DrawnSettings):
    """All that the files depend on.

    Attributes:
        train_images, val_images, test_images: how many images each split has.
        drawn_size: width and height of the images in pixels.
        label: "kind" is color and shape of the largest object, "colour" and "shape" one of them.
    """

    data_set: ClassVar[str] = "shapes_classification"
    train_images: int = 8000
    val_images: int = 300
    test_images: int = 500
    drawn_size: int = 64
    label: Label = "kind"

    def check(self) -> list[tuple[str, str]]:
        """Return an error for each value that cannot be drawn."""
        errors = check_sizes(self, "train_images", "val_images", "test_images")
        if self.label not in LABELS:
            errors.append(("label", f"is {self.label!r}; give one of {', '.join(LABELS)}."))
        return errors

    def write(self, folder: Path) -> None:
        """Write all files into `folder`."""
        annotations = folder / "annotations"
        write_json(class_names(self.label), annotations / "classes.json")
        for split in SPLITS:
            numbers = numbers_of(self.data_set, split, getattr(self, f"{split}_images"))
            pictures = draw_pictures(folder, split, self.seed, numbers, self.drawn_size)
            records = [
                {"image": picture.image, "label": class_of(picture.scene, self.label)} for picture in pictures
            ]
            write_json(records, annotations / f"shapes_classification_{split}.json")
