"""Write drawn images with one class each.

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

from .classes import LABELS, Label, class_names, class_of
from .write_images import SPLITS, check_sizes, pictures_of, write_pictures
from .write_once import write_json, write_once


@dataclass
class ClassificationSettings:
    """All that the files depend on.

    Args:
        train_images: how many the split has; so `val_images` and `test_images`.
        drawn_size: pixels a side.
        label: "kind" tells colour and shape of the largest object, "colour" and "shape" one of them.
    """

    version = 1  # no field: count up whenever one seed no longer gives the same files
    seed: int = 42
    train_images: int = 8000
    val_images: int = 300
    test_images: int = 500
    drawn_size: int = 64
    label: Label = "kind"

    def check(self) -> list[tuple[str, str]]:
        """Return complaints about values that cannot be."""
        complaints = check_sizes(self, "train_images", "val_images", "test_images")
        if self.label not in LABELS:
            complaints.append(("label", f"is {self.label!r}; give one of {', '.join(LABELS)}."))
        return complaints


def write_classification(folder: str | Path, settings: ClassificationSettings) -> Path:
    """Write the data set into `folder`, if it is not there yet, and return the folder.

    Raises:
        ShapesError: settings that cannot be, or a folder that holds something else.
    """
    return write_once("shapes_classification", folder, settings, lambda aside: _write_all(aside, settings))


def _write_all(folder: Path, settings: ClassificationSettings) -> None:
    write_json(class_names(settings.label), folder / "annotations" / "classes.json")
    for split in SPLITS:
        pictures = pictures_of("classification", split, settings.seed, getattr(settings, f"{split}_images"))
        write_pictures(folder, split, pictures, settings.drawn_size)
        records = [
            {"image": picture.image, "label": class_of(picture.scene, settings.label)} for picture in pictures
        ]
        write_json(records, folder / "annotations" / f"shapes_classification_{split}.json")
