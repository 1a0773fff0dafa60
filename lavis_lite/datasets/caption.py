"""Images with captions: items for training and for evaluation."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import torch

from lavis_lite.datasets.annotations import group_by_image
from lavis_lite.datasets.base_dataset import BaseDataset

logger = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class CaptionDataset(BaseDataset):
    """Training items: an image and one caption, or several of its captions at once.

    "image_id" is the id in the annotations, or the file name.

    Args:
        captions_per_image: None for one item per caption, as COCO lists them. N for one item per image
            with N of its captions, drawn in each epoch (with repeats if it has fewer), so that the image
            is encoded once for all of them.
    """

    captions_per_image: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.captions_per_image is not None:
            self.annotations = group_by_image(self.annotations)
        self.image_ids = annotated_image_ids(self.annotations)

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        image = self.read_media(annotation["image"])  # before the captions: both draw random numbers
        if self.captions_per_image is None:
            text_input = self.text_processor(annotation["caption"])
        else:
            text_input = self._draw(annotation["caption"], self.captions_per_image)
        return {
            "image": image,
            "text_input": text_input,
            "image_id": self.image_ids.get(annotation["image"], annotation["image"]),
            "instance_id": index,
        }

    def _draw(self, captions: Sequence[str], count: int) -> list[str]:
        order = torch.cat([torch.randperm(len(captions)) for _ in range(-(-count // len(captions)))])
        return [self.text_processor(captions[i]) for i in order[:count].tolist()]


class CaptionEvalDataset(BaseDataset):
    """Evaluation items: an image and all its reference captions, which may be none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.annotations = group_by_image(self.annotations)
        self.image_ids = annotated_image_ids(self.annotations) or numbers_in_names(
            annotation["image"] for annotation in self.annotations
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        return {
            "image": self.read_media(annotation["image"]),
            "image_id": self.image_ids.get(annotation["image"], annotation["image"]),
            "instance_id": index,
            "references": annotation["caption"],
            "image_path": str(self.image_root / annotation["image"]),
        }

    def truth_metrics(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return metrics that need knowledge of this data set; `records` are those of the task."""
        return {}


class NoCapsEvalDataset(CaptionEvalDataset):
    """NoCaps items: "image_id" is the number that its server expects; "domain" may be None."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        number = annotation.get("img_id", annotation.get("image_id", annotation["image"]))
        return {**super().__getitem__(index), "image_id": number, "domain": annotation.get("domain")}


def annotated_image_ids(annotations: Iterable[Mapping[str, Any]]) -> dict[str, int | str]:
    """Return image -> its annotated id ("image_id", or "id"); nothing unless ids and images match one to one.

    >>> annotated_image_ids([{"image": "a.jpg", "image_id": 7}, {"image": "b.jpg", "image_id": 9}])
    {'a.jpg': 7, 'b.jpg': 9}

    >>> annotated_image_ids([{"image": "a.jpg", "id": 1}, {"image": "a.jpg", "id": 2}])  # ids of captions
    {}
    """
    annotations = list(annotations)
    for key in ("image_id", "id"):
        values = [annotation.get(key) for annotation in annotations]
        if any(isinstance(value, bool) or not isinstance(value, int | str) for value in values):
            continue
        pairs = list(dict.fromkeys((annotation["image"], annotation[key]) for annotation in annotations))
        ids = dict(pairs)
        if len(ids) == len(pairs) == len(set(ids.values())):
            return ids
        if key == "image_id":
            logger.warning(
                "The annotations give the same image_id to several images, or several to one; results "
                "name the images by their files."
            )
    return {}


def numbers_in_names(images: Iterable[str]) -> dict[str, int | str]:
    """Return image -> COCO's number, if every file name ends in twelve digits and the numbers are unique.

    >>> numbers_in_names(["val2014/COCO_val2014_000000184613.jpg"])
    {'val2014/COCO_val2014_000000184613.jpg': 184613}
    >>> numbers_in_names(["a/000000000001.jpg", "b/000000000001.jpg"]), numbers_in_names(["beach 1.jpg"])
    ({}, {})
    """
    numbers: dict[str, int | str] = {}
    for image in images:
        digits = re.search(r"(?:^|_)(\d{12})$", PurePosixPath(image).stem)
        if digits is None:
            return {}
        numbers[image] = int(digits[1])
    return numbers if len(set(numbers.values())) == len(numbers) else {}
