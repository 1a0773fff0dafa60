"""Sentences about two images, true or false (NLVR2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from lavis_lite.datasets.annotations import AnnotationError, Records, check_each, image_of, text_of, value_of
from lavis_lite.datasets.base_dataset import BaseDataset, collate

LABELS = {"True": 1, "False": 0}
_OTHER_SIDE = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}


def check_pairs(records: Records) -> list[dict[str, Any]]:
    """Return `records` with "sentence", two paths under "images", and "label" 0 or 1.

    Raises:
        AnnotationError: invalid records; names file, record and key.
    """

    def check(record: Mapping[str, Any], where: str) -> dict[str, Any]:
        images = value_of(record, ("images",), where)
        if not isinstance(images, list) or len(images) != 2:
            raise AnnotationError(f"{where}, key 'images': expected two file names, found {images!r:.80}.")
        label = str(value_of(record, ("label",), where))
        if label not in LABELS:
            raise AnnotationError(f"{where}, key 'label': expected True or False, found {label!r:.80}.")
        return {
            **record,
            "images": [image_of(image, where) for image in images],
            "sentence": text_of(value_of(record, ("sentence",), where), f"{where}, key 'sentence'"),
            "label": LABELS[label],
        }

    return check_each(records, check)


class NLVRDataset(BaseDataset):
    """Training items: two images, a sentence, and 1 if it is true.

    Half of the time the images are swapped, with "left" and "right" in the sentence, as in BLIP's training.
    """

    swaps: ClassVar[bool] = True

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        first, second = annotation["images"]
        sentence = annotation["sentence"]
        if self.swaps and torch.rand(()) < 0.5:
            first, second = second, first
            sentence = swap_sides(sentence)
        return {
            "image0": self.read_media(first),
            "image1": self.read_media(second),
            "text_input": self.text_processor(sentence),
            "label": annotation["label"],
            "instance_id": index,
        }

    def collater(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return one batch, with "label" as a tensor."""
        return with_label_tensor(collate(samples))


class NLVREvalDataset(NLVRDataset):
    """Evaluation items: the same, never swapped."""

    swaps = False


def swap_sides(sentence: str) -> str:
    """Return `sentence` with "left" and "right" exchanged.

    >>> swap_sides("the left image has more dogs than the right one")
    'the right image has more dogs than the left one'
    """
    return " ".join(_OTHER_SIDE.get(word, word) for word in sentence.split(" "))


def with_label_tensor(batch: dict[str, Any]) -> dict[str, Any]:
    """Return `batch` with "label" as an int64 tensor."""
    return {**batch, "label": torch.tensor(batch["label"])}
