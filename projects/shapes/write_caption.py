"""Scenes with five captions each, in the layout of COCO's Karpathy split.

===========================================  ==================================================
``annotations/shapes_karpathy_train.json``   one ``{"image", "caption", "image_id"}`` a caption
``annotations/shapes_karpathy_val.json``     one ``{"image", "caption": [five]}`` an image; test too
``annotations/shapes_karpathy_val_gt.json``  COCO's ground truth for pycocoevalcap; test too
``scenes/train.jsonl``                       what each image shows; val and test too
``images/train/000000000000.jpg``            the images
===========================================  ==================================================

Images are numbered through all splits: train from 0, then val, then test. Scene and captions of
image n depend on the seed and n only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .grammar import captions
from .pictures import SPLITS, Picture, draw_pictures
from .scene import Scene, numbered_rng
from .write_once import WORLD_VERSION, DrawnSettings, check_sizes, write_json

CAPTIONS_PER_IMAGE = 5


@dataclass
class CaptionSettings(DrawnSettings):
    """All that the files depend on.

    Attributes:
        train_images, val_images, test_images: how many images each split has.
        drawn_size: width and height of the images in pixels.
    """

    data_set: ClassVar[str] = "shapes_caption"
    train_images: int = 4000
    val_images: int = 200
    test_images: int = 300
    drawn_size: int = 96

    def check(self) -> list[tuple[str, str]]:
        """Return an error for each value that cannot be drawn."""
        return check_sizes(self, "train_images", "val_images", "test_images")

    def identity(self) -> dict[str, Any]:
        """Return the content of the settings file, which is older than that of the other data sets."""
        sizes = dict(zip(SPLITS, self._counts(), strict=True))
        return {"seed": self.seed, **sizes, "image_size": self.drawn_size, "world_version": WORLD_VERSION}

    def cache_name(self) -> str:
        """Return the name of the folder in the cache for these settings."""
        return "_".join(map(str, ("caption", self.seed, *self._counts(), self.drawn_size)))

    def _counts(self) -> tuple[int, int, int]:
        return self.train_images, self.val_images, self.test_images

    def write(self, folder: Path) -> None:
        """Write all files into `folder`."""
        first = 0
        for split, count in zip(SPLITS, self._counts(), strict=True):
            numbers = range(first, first + count)
            pictures = draw_pictures(folder, split, self.seed, numbers, self.drawn_size)
            self._write_captions(folder / "annotations", split, pictures)
            first += count

    def _write_captions(self, folder: Path, split: str, pictures: Sequence[Picture]) -> None:
        texts = {
            picture.number: true_captions(picture.scene, self.seed, picture.number) for picture in pictures
        }
        if split == "train":
            entries: list[dict[str, Any]] = [
                {"image": picture.image, "caption": caption, "image_id": f"shapes_{picture.number}"}
                for picture in pictures
                for caption in texts[picture.number]
            ]
        else:
            entries = [{"image": picture.image, "caption": texts[picture.number]} for picture in pictures]
            write_json(_coco_ground_truth(texts), folder / f"shapes_karpathy_{split}_gt.json")
        write_json(entries, folder / f"shapes_karpathy_{split}.json")


def true_captions(scene: Scene, seed: int, number: int) -> list[str]:
    """Return five true captions of scene `number`."""
    return captions(scene, numbered_rng(seed, number, "captions"), CAPTIONS_PER_IMAGE)


def _coco_ground_truth(texts: Mapping[int, Sequence[str]]) -> dict[str, Any]:
    pairs = [(number, caption) for number, of_image in texts.items() for caption in of_image]
    return {
        "info": {"description": "captions of drawn shapes"},
        "licenses": [],
        "type": "captions",
        "images": [{"id": number} for number in texts],
        "annotations": [
            {"image_id": number, "caption": caption, "id": i} for i, (number, caption) in enumerate(pairs)
        ],
    }
