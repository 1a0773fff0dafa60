"""Images and texts that are to find each other: items of training and of evaluation."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_lite.datasets.annotations import group_by_image
from lavis_lite.datasets.base_dataset import BaseDataset, Processor


class RetrievalDataset(BaseDataset):
    """Training items: an image, one of its texts, and the number of the image among all."""

    def __init__(
        self,
        annotations: Sequence[Mapping[str, Any]],
        image_root: Path,
        vis_processor: Processor,
        text_processor: Processor,
    ) -> None:
        super().__init__(annotations, image_root, vis_processor, text_processor)
        # Numbered by image, not by the ids in the file, which are texts in some and absent in others.
        self.image_numbers: dict[str, int] = {}
        for annotation in annotations:
            self.image_numbers.setdefault(annotation["image"], len(self.image_numbers))

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        return {
            "image": self.vis_processor(self.open_image(annotation["image"])),
            "text_input": self.text_processor(annotation["caption"]),
            "image_id": self.image_numbers[annotation["image"]],
            "instance_id": index,
        }


class RetrievalEvalDataset(BaseDataset):
    """Evaluation items: every image once; all texts at hand.

    Attributes:
        image: the images' paths below `image_root`, by number.
        text: all texts, processed, by number.
        txt2img: text number -> number of its image.
        img2txt: image number -> numbers of its texts.
    """

    def __init__(
        self,
        annotations: Sequence[Mapping[str, Any]],
        image_root: Path,
        vis_processor: Processor,
        text_processor: Processor,
    ) -> None:
        super().__init__(list(group_by_image(annotations)), image_root, vis_processor, text_processor)
        self.image = [annotation["image"] for annotation in self.annotations]
        self.text: list[str] = []
        self.txt2img: dict[int, int] = {}
        self.img2txt: dict[int, list[int]] = {}
        for number, annotation in enumerate(self.annotations):
            first = len(self.text)
            self.text += [text_processor(caption) for caption in annotation["caption"]]
            self.img2txt[number] = list(range(first, len(self.text)))
            self.txt2img |= dict.fromkeys(self.img2txt[number], number)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "image": self.vis_processor(self.open_image(self.image[index])),
            "index": index,
            "instance_id": index,
        }

    def first(self, count: int) -> RetrievalEvalDataset:
        """Return the data set of the first `count` images and their texts alone."""
        part = copy.copy(self)
        part.annotations, part.image = self.annotations[:count], self.image[:count]
        part.img2txt = {number: self.img2txt[number] for number in range(len(part.image))}
        part.text = self.text[: sum(map(len, part.img2txt.values()))]
        part.txt2img = {number: self.txt2img[number] for number in range(len(part.text))}
        return part
