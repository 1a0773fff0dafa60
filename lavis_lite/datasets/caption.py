"""Images with captions: what an item of training and of evaluation is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from lavis_lite.datasets.annotations import group_by_image
from lavis_lite.datasets.base_dataset import BaseDataset, Processor


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

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        caption = annotation["caption"]
        return {
            "image": self.vis_processor(self.open_image(annotation["image"])),
            "text_input": self.text_processor(caption) if isinstance(caption, str) else self._draw(caption),
            "image_id": annotation.get("image_id", annotation["image"]),
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

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        return {
            "image": self.vis_processor(self.open_image(annotation["image"])),
            "image_id": image_id_of(annotation),
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


def image_id_of(annotation: Mapping[str, Any]) -> int | str:
    """Return COCO's number from a file name that ends in twelve digits, else the given id, else the path.

    >>> image_id_of({"image": "val2014/COCO_val2014_000000184613.jpg"})
    184613
    >>> image_id_of({"image": "holiday/beach 1.jpg"})
    'holiday/beach 1.jpg'
    """
    digits = re.search(r"(?:^|_)(\d{12})$", PurePosixPath(annotation["image"]).stem)
    return int(digits[1]) if digits else annotation.get("image_id", annotation["image"])
