"""Sentences about two images, true or false (NLVR2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lavis_lite.datasets.annotations import AnnotationError, Records, check_each, image_of, text_of, value_of
from lavis_lite.datasets.base_dataset import BaseDataset, collate

LABELS = {"True": 1, "False": 0}


def check_pairs(records: Records) -> list[dict[str, Any]]:
    """Return `records` with "sentence", two paths under "images", and "label" 0 or 1.

    Raises:
        AnnotationError: names file, place and key of the errors.
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
    """Items: two images, a sentence, and 1 where it is true.

    Args:
        swaps: whether training exchanges the images half of the time, with "left" and "right" in the
            sentence, as BLIP's training does; the evaluation must not.
    """

    swaps = True

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        first, second = annotation["images"]
        sentence = annotation["sentence"]
        if self.swaps and torch.rand(()) < 0.5:
            first, second = second, first
            sentence = swap_sides(sentence)
        return {
            "image0": self.vis_processor(self.open_image(first)),
            "image1": self.vis_processor(self.open_image(second)),
            "text_input": self.text_processor(sentence),
            "label": annotation["label"],
            "instance_id": index,
        }

    def collater(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return one batch; "label" a tensor."""
        return with_label_tensor(collate(samples))


class NLVREvalDataset(NLVRDataset):
    """The same without exchange."""

    swaps = False


def swap_sides(sentence: str) -> str:
    """Return `sentence` with "left" and "right" exchanged.

    >>> swap_sides("the left image has more dogs than the right one")
    'the right image has more dogs than the left one'
    """
    other = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    return " ".join(other.get(word, word) for word in sentence.split(" "))


def with_label_tensor(batch: dict[str, Any]) -> dict[str, Any]:
    """Return `batch` with "label" as an int64 tensor."""
    return {**batch, "label": torch.tensor(batch["label"])}
