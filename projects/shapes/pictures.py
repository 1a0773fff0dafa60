"""The numbered scenes of a data set's splits, and their images."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .render import render
from .scene import Scene, numbered_scene
from .write_once import write_jsonl

SPLITS = ("train", "val", "test")
# The first scene of each data set, so that none is tested on what another was trained on.
# The scenes of shapes_caption begin at 0.
_FIRST_OF_DATA_SET = {
    "shapes_web": 10_000_000,
    "shapes_vqa": 20_000_000,
    "shapes_nlvr": 30_000_000,
    "shapes_classification": 40_000_000,
    "shapes_video": 50_000_000,
}
# Far apart, so that the images of val and test do not depend on how many train has.
_FIRST_OF_SPLIT = {"train": 0, "val": 5_000_000, "test": 7_000_000}


@dataclass(frozen=True)
class Picture:
    """One image of a split.

    Args:
        number: number of the scene, unique over all splits; also the image's id.
        image: its path below ``images``.
        scene: what it shows.
    """

    number: int
    image: str
    scene: Scene


def numbers_of(data_set: str, split: str, count: int) -> range:
    """Return the numbers of the first `count` scenes of a split."""
    first = _FIRST_OF_DATA_SET[data_set] + _FIRST_OF_SPLIT[split]
    return range(first, first + count)


def draw_pictures(folder: Path, split: str, seed: int, numbers: range, image_size: int) -> list[Picture]:
    """Draw numbered scenes into ``images/<split>`` and ``scenes/<split>.jsonl``, and return them."""
    (folder / "images" / split).mkdir(parents=True)
    pictures = []
    for number in numbers:
        picture = Picture(number, f"{split}/{number:012d}.jpg", numbered_scene(seed, number))
        (folder / "images" / picture.image).write_bytes(jpeg(render(picture.scene, image_size)))
        pictures.append(picture)
    lines = [{"image": picture.image, "scene": picture.scene.to_json()} for picture in pictures]
    write_jsonl(lines, folder / "scenes" / f"{split}.jsonl")
    return pictures


def read_scenes(folder: Path, split: str) -> dict[str, Scene]:
    """Return image name -> scene, as `draw_pictures` wrote them."""
    lines = (folder / "scenes" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return {record["image"]: Scene.from_json(record["scene"]) for record in records}


def jpeg(image: Image.Image) -> bytes:
    """Return an image as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    # Subsampling 0 keeps colors at full resolution; halved, it would smear small shapes.
    image.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()
