"""Labels of images, and of images with sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_lite.common.images import IMAGE_SUFFIXES
from lavis_lite.common.registry import suggest
from lavis_lite.datasets.annotations import (
    CAPTION_KEYS,
    IMAGE_KEYS,
    AnnotationError,
    check_each,
    image_of,
    text_of,
    value_of,
)
from lavis_lite.datasets.base_dataset import BaseDataset, Processor, collate
from lavis_lite.datasets.nlvr import with_label_tensor

SENTENCE_KEYS = ("sentence", *CAPTION_KEYS)


def check_labels(
    records: Iterable[Any], path: Path, classes: Sequence[str], with_text: bool
) -> list[dict[str, Any]]:
    """Return `records` with "image", "label" as a number of `classes`, and "sentence" where `with_text`.

    Raises:
        AnnotationError: names file, index and key of the first fault.
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

    return check_each(records, path, check)


def labelled_folders(root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return records and class names of a folder that has one folder a class, in the order of names.

    Raises:
        AnnotationError: no such folder, or no class in it.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if not folders:
        raise AnnotationError(f"{root}: expected one folder a class, with its images.")
    records = [
        {"image": str(image.relative_to(root)), "label": number}
        for number, folder in enumerate(folders)
        for image in sorted(folder.rglob("*"))
        if image.suffix.lower() in IMAGE_SUFFIXES
    ]
    return records, [folder.name for folder in folders]


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
