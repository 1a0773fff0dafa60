"""Images with captions: what an item of training and of evaluation is."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from lavis_lite.datasets.annotations import group_by_image
from lavis_lite.datasets.base_dataset import BaseDataset, Processor

logger = logging.getLogger(__name__)


class CaptionDataset(BaseDataset):
    """Training items: an image and one caption, or several of its captions at once.

    Args:
        captions_per_image: None gives one item a caption, as COCO lists them. N gives one item an
            image with N of its captions, drawn anew each epoch (with repeats where it has fewer),
            so that the image is encoded once for all of them.
    """

    def __init__(
        self,
        annotations: Sequence[Mapping[str, Any]],
        image_root: Path,
        vis_processor: Processor,
        text_processor: Processor,
        captions_per_image: int | None = None,
    ) -> None:
        grouped = captions_per_image is not None
        super().__init__(
            list(group_by_image(annotations)) if grouped else annotations,
            image_root,
            vis_processor,
            text_processor,
        )
        self.captions_per_image = captions_per_image
        self.image_ids = own_image_ids(self.annotations)

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        caption = annotation["caption"]
        return {
            "image": self.vis_processor(self.open_image(annotation["image"])),
            "text_input": self.text_processor(caption) if isinstance(caption, str) else self._draw(caption),
            "image_id": self.image_ids.get(annotation["image"], annotation["image"]),
            "instance_id": index,
        }

    def _draw(self, captions: Sequence[str]) -> list[str]:
        count = self.captions_per_image
        order = torch.cat([torch.randperm(len(captions)) for _ in range(-(-count // len(captions)))])
        return [self.text_processor(captions[i]) for i in order[:count].tolist()]


class CaptionEvalDataset(BaseDataset):
    """Evaluation items: an image and all its reference captions (none, where nobody wrote any)."""

    def __init__(
        self,
        annotations: Sequence[Mapping[str, Any]],
        image_root: Path,
        vis_processor: Processor,
        text_processor: Processor,
    ) -> None:
        super().__init__(list(group_by_image(annotations)), image_root, vis_processor, text_processor)
        self.image_ids = own_image_ids(self.annotations) or numbers_in_names(
            annotation["image"] for annotation in self.annotations
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        return {
            "image": self.vis_processor(self.open_image(annotation["image"])),
            "image_id": self.image_ids.get(annotation["image"], annotation["image"]),
            "instance_id": index,
            "references": annotation["caption"],
            "image_path": str(self.image_root / annotation["image"]),
        }

    def truth_metrics(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return further numbers that only this data set can judge; `records` as the task made them."""
        return {}


class NoCapsEvalDataset(CaptionEvalDataset):
    """NoCaps: known by the number that its server asks for, and of a domain where the file says which."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        number = annotation.get("img_id", annotation.get("image_id", annotation["image"]))
        return {**super().__getitem__(index), "image_id": number, "domain": annotation.get("domain")}


def own_image_ids(annotations: Iterable[Mapping[str, Any]]) -> dict[str, int | str]:
    """Return image -> the id that the file gives it ("image_id", or "id"), where no two images share one.

    >>> own_image_ids([{"image": "a.jpg", "image_id": 7}, {"image": "b.jpg", "image_id": 9}])
    {'a.jpg': 7, 'b.jpg': 9}

    >>> own_image_ids([{"image": "a.jpg", "id": 1}, {"image": "a.jpg", "id": 2}])  # numbers of captions
    {}
    """
    annotations = list(annotations)
    for key in ("image_id", "id"):
        ids: dict[str, set[int | str]] = {}
        for annotation in annotations:
            value = annotation.get(key)
            if isinstance(value, bool) or not isinstance(value, int | str):
                break
            ids.setdefault(annotation["image"], set()).add(value)
        else:
            if len(set().union(*ids.values())) == len(ids) and all(len(own) == 1 for own in ids.values()):
                return {image: own.pop() for image, own in ids.items()}
            if key == "image_id":
                logger.warning(
                    "The annotations give the same image_id to several images, or several to one; results "
                    "name the images by their files."
                )
    return {}


def numbers_in_names(images: Iterable[str]) -> dict[str, int | str]:
    """Return image -> COCO's number, where every file name ends in twelve digits and no number comes twice.

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
