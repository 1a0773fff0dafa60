"""Labels of images, and of images with sentences."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis_lite.common.files import printable
from lavis_lite.common.media.image_files import is_housekeeping, list_folder, log_once
from lavis_lite.common.registry import suggest
from lavis_lite.datasets.annotations import (
    CAPTION_KEYS,
    IMAGE_KEYS,
    AnnotationError,
    Records,
    check_each,
    image_of,
    text_of,
    value_of,
)
from lavis_lite.datasets.base_dataset import BaseDataset, collate
from lavis_lite.datasets.nlvr import with_label_tensor

SENTENCE_KEYS = tuple(dict.fromkeys(("sentence", *CAPTION_KEYS)))


def check_labels(records: Records, classes: Sequence[str], with_text: bool) -> list[dict[str, Any]]:
    """Return `records` with "image", "label" as an index of `classes`, and "sentence" if `with_text`.

    Raises:
        AnnotationError: invalid records; names file, record and key.
    """
    numbers: dict[int | str, int] = {name: number for number, name in enumerate(classes)}

    def check(record: Mapping[str, Any], where: str) -> dict[str, Any]:
        label = value_of(record, ("label",), where)
        is_number = isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(classes)
        if not is_number and str(label) not in numbers:
            raise AnnotationError(
                f"{where}, key 'label': {label!r} is no class.{suggest(str(label), list(classes))}"
            )
        checked = {
            **record,
            "image": image_of(value_of(record, IMAGE_KEYS, where), where),
            "label": label if is_number else numbers[str(label)],
        }
        if with_text:
            checked["sentence"] = text_of(value_of(record, SENTENCE_KEYS, where), f"{where}, key 'sentence'")
        return checked

    return check_each(records, check)


def labeled_folders(root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return records and class names of a folder with one subfolder for each class, sorted by name.

    Hidden folders, and those of systems, are not classes.

    Raises:
        AnnotationError: no such folder, or no image in any class.
    """
    records: list[dict[str, Any]] = []
    names: list[str] = []
    if root.is_dir():
        folders = [path for path in root.iterdir() if path.is_dir() and not is_housekeeping(path.name)]
        folders.sort(key=os.fsencode)
        names = [folder.name for folder in folders]
        outside = list_folder(root, recursive=False)
        listings = [list_folder(folder) for folder in folders]
        for listing in (outside, *listings):
            listing.log()
        _warn_of(root, "images that lie in no class folder", outside.files)
        _warn_of(root, "class folders without an image", [one.folder for one in listings if not one.files])
        records = [
            {"image": image.relative_to(root).as_posix(), "label": number}
            for number, listing in enumerate(listings)
            for image in listing.files
        ]
    if not records:
        raise AnnotationError(f"{printable(root)}: expected one folder a class, with its images.")
    return records, names


def _warn_of(root: Path, what: str, paths: Sequence[Path]) -> None:
    if paths:
        first = printable(paths[0].name)
        log_once(logging.WARNING, f"{printable(root)}: {len(paths)} {what}, {first} the first.")


@dataclass(eq=False, repr=False)
class ClassificationDataset(BaseDataset):
    """Items: an image, the index of its class, and a sentence, which is empty if the data set has none.

    Args:
        classes: names of the classes, by index.
    """

    classes: Sequence[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.classes = list(self.classes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        sentence = annotation.get("sentence")
        return {
            "image": self.read_media(annotation["image"]),
            "text_input": "" if sentence is None else self.text_processor(sentence),
            "label": annotation["label"],
            "image_id": annotation.get("image_id", annotation["image"]),
            "image_path": str(self.image_root / annotation["image"]),
            "instance_id": index,
        }

    def collater(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return one batch, with "label" as a tensor."""
        return with_label_tensor(collate(samples))
