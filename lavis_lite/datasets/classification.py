"""Labels of images, and of images with sentences."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
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
from lavis_lite.datasets.base_dataset import BaseDataset, Processor, collate
from lavis_lite.datasets.nlvr import with_label_tensor

SENTENCE_KEYS = tuple(dict.fromkeys(("sentence", *CAPTION_KEYS)))


def check_labels(records: Records, classes: Sequence[str], with_text: bool) -> list[dict[str, Any]]:
    """Return `records` with "image", "label" as a number of `classes`, and "sentence" where `with_text`.

    Raises:
        AnnotationError: names file, place and key of the errors.
    """
    numbers = {name: number for number, name in enumerate(classes)}

    def check(record: Mapping[str, Any], where: str) -> dict[str, Any]:
        label = value_of(record, ("label",), where)
        if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(classes):
            number = label
        elif str(label) in numbers:
            number = numbers[str(label)]
        else:
            raise AnnotationError(
                f"{where}, key 'label': {label!r} is no class.{suggest(str(label), list(classes))}"
            )
        checked = {**record, "image": image_of(value_of(record, IMAGE_KEYS, where), where), "label": number}
        if with_text:
            checked["sentence"] = text_of(value_of(record, SENTENCE_KEYS, where), f"{where}, key 'sentence'")
        return checked

    return check_each(records, check)


def labelled_folders(root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return records and class names of a folder that has one folder a class, in the order of names.

    Hidden folders, and those that systems keep for themselves, are no classes.

    Raises:
        AnnotationError: no such folder, or no image in any class.
    """
    if not root.is_dir():
        raise AnnotationError(f"{printable(root)}: expected one folder a class, with its images.")
    folders = sorted(
        (path for path in root.iterdir() if path.is_dir() and not is_housekeeping(path.name)), key=os.fsencode
    )
    outside = list_folder(root, recursive=False)
    _warn_of(root, "images that lie in no class folder", outside.files)
    listings = [list_folder(folder) for folder in folders]
    for listing in (outside, *listings):
        listing.log()
    _warn_of(root, "class folders without an image", [one.folder for one in listings if not one.files])
    records = [
        {"image": image.relative_to(root).as_posix(), "label": number}
        for number, listing in enumerate(listings)
        for image in listing.files
    ]
    if not records:
        raise AnnotationError(f"{printable(root)}: expected one folder a class, with its images.")
    return records, [folder.name for folder in folders]


def _warn_of(root: Path, what: str, paths: Sequence[Path]) -> None:
    if paths:
        log_once(
            logging.WARNING,
            f"{printable(root)}: {len(paths)} {what}, {printable(paths[0].name)} the first.",
        )


class ClassificationDataset(BaseDataset):
    """Items: an image and the number of its class, and a sentence, empty where the data set has none.

    Attributes:
        classes: names, by number.
    """

    def __init__(
        self,
        annotations: Sequence[Mapping[str, Any]],
        image_root: Path,
        vis_processor: Processor,
        text_processor: Processor,
        classes: Sequence[str],
    ) -> None:
        super().__init__(annotations, image_root, vis_processor, text_processor)
        self.classes = list(classes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        sentence = annotation.get("sentence")
        return {
            "image": self.vis_processor(self.open_image(annotation["image"])),
            "text_input": "" if sentence is None else self.text_processor(sentence),
            "label": annotation["label"],
            "image_id": annotation.get("image_id", annotation["image"]),
            "image_path": str(self.image_root / annotation["image"]),
            "instance_id": index,
        }

    def collater(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return one batch; "label" a tensor."""
        return with_label_tensor(collate(samples))
