"""Images and texts to match: items for training and for evaluation."""

from __future__ import annotations

import copy
from typing import Any

from lavis_lite.datasets.annotations import group_by_image
from lavis_lite.datasets.base_dataset import BaseDataset


class RetrievalDataset(BaseDataset):
    """Training items: an image and one of its texts.

    "image_id" is the index of the image among all images, which tells the texts of one image from others.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        # Ids in the file are texts in some data sets and missing in others.
        self.image_numbers: dict[str, int] = {}
        for annotation in self.annotations:
            self.image_numbers.setdefault(annotation["image"], len(self.image_numbers))

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        return {
            self.media: self.read_media(annotation["image"]),
            "text_input": self.text_processor(annotation["caption"]),
            "image_id": self.image_numbers[annotation["image"]],
            "instance_id": index,
        }


class RetrievalEvalDataset(BaseDataset):
    """Evaluation items: every image once; the texts are attributes of the data set.

    Attributes:
        image: paths of the images below `image_root`, by index.
        text: all texts, processed, by index.
        txt2img: index of a text -> index of its image.
        img2txt: index of an image -> indices of its texts.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.annotations = group_by_image(self.annotations)
        self.image = [annotation["image"] for annotation in self.annotations]
        self.text: list[str] = []
        self.txt2img: dict[int, int] = {}
        self.img2txt: dict[int, list[int]] = {}
        for number, annotation in enumerate(self.annotations):
            first = len(self.text)
            self.text += [self.text_processor(caption) for caption in annotation["caption"]]
            self.img2txt[number] = list(range(first, len(self.text)))
            self.txt2img |= dict.fromkeys(self.img2txt[number], number)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {self.media: self.read_media(self.image[index]), "index": index, "instance_id": index}

    def first(self, count: int) -> RetrievalEvalDataset:
        """Return a data set of the first `count` images and their texts."""
        part = copy.copy(self)
        part.annotations, part.image = self.annotations[:count], self.image[:count]
        part.img2txt = {number: self.img2txt[number] for number in range(len(part.image))}
        part.text = self.text[: sum(map(len, part.img2txt.values()))]
        part.txt2img = {number: self.txt2img[number] for number in range(len(part.text))}
        return part
