"""Write a drawn data set to disk, in the layout of COCO's Karpathy split.

==========================================  =====================================================
``annotations/shapes_karpathy_train.json``  one ``{"image", "caption", "image_id"}`` a caption
``annotations/shapes_karpathy_val.json``    one ``{"image", "caption": [five]}`` an image; test too
``annotations/shapes_karpathy_val_gt.json`` COCO's ground truth for pycocoevalcap; test too
``scenes/train.jsonl``                      what each image shows; val and test too
``images/train/000000000000.jpg``           the images
``shapes.json``                             the settings of all this
==========================================  =====================================================
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from lavis_lite.common.config.schema import ConfigError

from .grammar import captions
from .render import render
from .scene import Scene, numbered_rng, numbered_scene

CAPTIONS_PER_IMAGE = 5
SETTINGS_FILE = "shapes.json"
# Count up whenever one seed no longer gives the same scenes, captions or pixels.
WORLD_VERSION = 1
_JPEG = {"quality": 92, "subsampling": 0}  # halved colour resolution would smear small shapes

Progress = Callable[[int, int], None]


class ShapesError(ConfigError):
    """A folder that cannot hold the data set that was asked for; the text says why and what to do."""


@dataclass(frozen=True)
class _Settings:
    """All that the files depend on."""

    seed: int
    train: int
    val: int
    test: int
    image_size: int
    world_version: int = WORLD_VERSION

    def check(self) -> None:
        for name in ("train", "val", "test"):
            if getattr(self, name) < 0:
                raise ShapesError(f"{name} is {getattr(self, name)}; give the number of images, 0 or more.")
        if not 32 <= self.image_size <= 1024:
            raise ShapesError(f"image_size is {self.image_size}; give 32 to 1024 pixels.")


@dataclass(frozen=True)
class _Picture:
    """One image of a split, with all that is known about it."""

    number: int
    image: str
    scene: Scene
    captions: list[str]


def write_shapes_caption(
    folder: str | Path,
    seed: int = 42,
    train: int = 4000,
    val: int = 200,
    test: int = 300,
    image_size: int = 96,
    progress: Progress | None = None,
) -> Path:
    """Write the data set into `folder`, if it is not there yet, and return the folder.

    Images are numbered through all splits: train from 0, then val, then test. Scene and captions of
    image n depend on `seed` and n only. The folder appears when it is complete; processes that ask for
    it at once wait for the one that writes.

    Args:
        train: how many images the split has; so `val` and `test`.
        image_size: pixels a side.
        progress: called as ``progress(done, total)`` after each image.

    Raises:
        ShapesError: `folder` holds a data set of other settings, or something else.
    """
    settings = _Settings(seed, train, val, test, image_size)
    settings.check()
    folder = Path(folder).expanduser().absolute()
    if _is_written(folder, settings):
        return folder  # without a lock, for the place may be read-only
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not _is_written(folder, settings):
            _write_aside_and_rename(folder, settings, progress)
    return folder


def _is_written(folder: Path, settings: _Settings) -> bool:
    """Return whether the folder holds what `settings` ask for; raise if it holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    marker = folder / SETTINGS_FILE
    if not marker.is_file():
        raise ShapesError(
            f"{folder}: is not a drawn data set (it has no {SETTINGS_FILE}), and is not empty; "
            "choose another folder."
        )
    found, wanted = _read_settings(marker), asdict(settings)
    differences = [
        f"{key} is {found.get(key)!r} there, {wanted.get(key)!r} was asked for"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    ]
    if differences:
        raise ShapesError(
            f"{marker}: the data set was written with other settings: {'; '.join(differences)}. "
            "Ask for the same, choose another folder, or remove this one."
        )
    return True


def _read_settings(marker: Path) -> dict[str, Any]:
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ShapesError(f"{marker}: is not JSON ({error}); remove the folder to write it anew.") from error
    if not isinstance(found, dict):
        raise ShapesError(f"{marker}: expected a mapping of settings; remove the folder to write it anew.")
    return found


def _write_aside_and_rename(folder: Path, settings: _Settings, progress: Progress | None) -> None:
    aside = folder.with_name(f".{folder.name}.tmp")
    if aside.exists():
        shutil.rmtree(aside)  # of a process that was killed: the lock is ours
    try:
        _write_all(aside, settings, progress)
        if folder.exists():
            folder.rmdir()  # it is empty, and not every system renames onto an empty folder
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _write_all(folder: Path, settings: _Settings, progress: Progress | None) -> None:
    counts = {"train": settings.train, "val": settings.val, "test": settings.test}
    total = sum(counts.values())
    first = 0
    for split, count in counts.items():
        (folder / "images" / split).mkdir(parents=True)
        pictures = []
        for picture in _pictures(split, settings.seed, range(first, first + count)):
            image = render(picture.scene, settings.image_size)
            image.save(folder / "images" / picture.image, **_JPEG)
            pictures.append(picture)
            if progress is not None:
                progress(picture.number + 1, total)
        _write_texts(folder, split, pictures)
        first += count
    _write_json(asdict(settings), folder / SETTINGS_FILE)


def _pictures(split: str, seed: int, numbers: range) -> Iterator[_Picture]:
    for number in numbers:
        scene = numbered_scene(seed, number)
        texts = captions(scene, numbered_rng(seed, number, "captions"), CAPTIONS_PER_IMAGE)
        yield _Picture(number, f"{split}/{number:012d}.jpg", scene, texts)


def _write_texts(folder: Path, split: str, pictures: list[_Picture]) -> None:
    annotations = folder / "annotations"
    if split == "train":
        _write_json(_one_entry_a_caption(pictures), annotations / "shapes_karpathy_train.json")
    else:
        entries = [{"image": picture.image, "caption": picture.captions} for picture in pictures]
        _write_json(entries, annotations / f"shapes_karpathy_{split}.json")
        _write_json(_coco_ground_truth(pictures), annotations / f"shapes_karpathy_{split}_gt.json")
    lines = [
        json.dumps({"image": picture.image, "scene": picture.scene.to_json()}) + "\n" for picture in pictures
    ]
    _write_text("".join(lines), folder / "scenes" / f"{split}.jsonl")


def _one_entry_a_caption(pictures: list[_Picture]) -> list[dict[str, str]]:
    return [
        {"image": picture.image, "caption": caption, "image_id": f"shapes_{picture.number}"}
        for picture in pictures
        for caption in picture.captions
    ]


def _coco_ground_truth(pictures: list[_Picture]) -> dict[str, Any]:
    pairs = [(picture.number, caption) for picture in pictures for caption in picture.captions]
    return {
        "info": {"description": "captions of drawn shapes"},
        "licenses": [],
        "type": "captions",
        "images": [{"id": picture.number} for picture in pictures],
        "annotations": [
            {"image_id": number, "caption": caption, "id": i} for i, (number, caption) in enumerate(pairs)
        ],
    }


def _write_json(content: Any, path: Path) -> None:
    _write_text(json.dumps(content) + "\n", path)


def _write_text(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))  # bytes, so that line ends are the same on every system
