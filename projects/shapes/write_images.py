"""Number, draw and write the scenes of the splits of a data set."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .render import render
from .scene import Scene, numbered_scene
from .write_once import write_jsonl

SPLITS = ("train", "val", "test")
# Where each data set begins to number its scenes, so that none tests on what another was trained on.
# The scenes of shapes_caption begin at 0.
_FIRST_OF_DATA_SET = {
    "web": 10_000_000,
    "vqa": 20_000_000,
    "nlvr": 30_000_000,
    "classification": 40_000_000,
    "video": 50_000_000,
}
# Far apart, so that the images of val and test do not depend on how many train has.
_FIRST_OF_SPLIT = {"train": 0, "val": 5_000_000, "test": 7_000_000}
_JPEG = {"quality": 92, "subsampling": 0}  # halved colour resolution would smear small shapes


@dataclass(frozen=True)
class Picture:
    """One image of a split.

    Args:
        number: of the scene, through all splits; also the image's id.
        image: its path below ``images``.
    """

    number: int
    image: str
    scene: Scene


def numbers_of(data_set: str, split: str, count: int) -> range:
    """Return the numbers of the first `count` scenes of a split."""
    first = _FIRST_OF_DATA_SET[data_set] + _FIRST_OF_SPLIT[split]
    return range(first, first + count)


def check_sizes(settings: Any, *counts: str) -> list[tuple[str, str]]:
    """Return complaints about `counts` below 0, and about images in which nothing could be told."""
    found = [
        (name, f"is {getattr(settings, name)}; give 0 or more.")
        for name in counts
        if getattr(settings, name) < 0
    ]
    if not 32 <= settings.drawn_size <= 1024:
        found.append(("drawn_size", f"is {settings.drawn_size}; give 32 to 1024 pixels."))
    return found


def pictures_of(data_set: str, split: str, seed: int, count: int) -> list[Picture]:
    """Return the first `count` pictures of a split."""
    return [
        Picture(number, f"{split}/{number:012d}.jpg", numbered_scene(seed, number))
        for number in numbers_of(data_set, split, count)
    ]


def write_pictures(folder: Path, split: str, pictures: Sequence[Picture], image_size: int) -> None:
    """Write the images below ``images/<split>`` and what they show to ``scenes/<split>.jsonl``."""
    (folder / "images" / split).mkdir(parents=True)
    for picture in pictures:
        (folder / "images" / picture.image).write_bytes(drawn_jpeg(picture.scene, image_size))
    lines = [{"image": picture.image, "scene": picture.scene.to_json()} for picture in pictures]
    write_jsonl(lines, folder / "scenes" / f"{split}.jsonl")


def drawn_jpeg(scene: Scene, image_size: int) -> bytes:
    """Return the scene as the bytes of a JPEG file."""
    return jpeg(render(scene, image_size))


def jpeg(image: Image.Image) -> bytes:
    """Return an image as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **_JPEG)
    return buffer.getvalue()
