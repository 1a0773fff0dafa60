"""Frames of videos, read by decord or torchcodec, or from a folder of pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from lavis_lite.common.files import first_line
from lavis_lite.common.media.image_files import list_folder
from lavis_lite.common.media.images import open_image
from lavis_lite.common.registry import suggest


class VideoError(ValueError):
    """A video that cannot be read; the message names it and the cause."""


class VideoReader(Protocol):
    """An open video."""

    def __len__(self) -> int:
        """Return how many frames there are."""

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """Return frames (len(indices), height, width, 3), uint8 RGB."""


class _Decord:
    def __init__(self, path: Path) -> None:
        import decord

        self._reader = decord.VideoReader(str(path), num_threads=1)

    def __len__(self) -> int:
        return len(self._reader)

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        return self._reader.get_batch(list(indices)).asnumpy()


class _TorchCodec:
    def __init__(self, path: Path) -> None:
        from torchcodec.decoders import VideoDecoder

        self._decoder = VideoDecoder(str(path), dimension_order="NHWC")

    def __len__(self) -> int:
        return len(self._decoder)

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        return self._decoder.get_frames_at(list(indices)).data.numpy()


class _Pictures:
    def __init__(self, path: Path) -> None:
        listing = list_folder(path, recursive=False)
        listing.log()
        self._files = sorted(listing.files, key=_by_numbers)

    def __len__(self) -> int:
        return len(self._files)

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        return np.stack([np.asarray(open_image(self._files[index])) for index in indices])


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts frame2.jpg before frame10.jpg."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in parts]


# By name, in the order in which "auto" tries them. Add an entry to use another reader.
READERS: dict[str, Callable[[Path], VideoReader]] = {"decord": _Decord, "torchcodec": _TorchCodec}


def open_video(path: str | Path, reader: str = "auto") -> VideoReader:
    """Open a video file, or a folder of pictures, ordered by the numbers in their names.

    Args:
        reader: "decord", "torchcodec", or "auto" for the first one that is installed.

    Raises:
        VideoError: no such file, no reader for it, or it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return _checked(_Pictures, path)
    if not path.is_file():
        raise VideoError(f"{path}: no such video.")
    if reader != "auto":
        if reader not in READERS:
            raise VideoError(f"reader is {reader!r}.{suggest(reader, ['auto', *READERS])}")
        return _checked(READERS[reader], path)
    for opener in READERS.values():
        try:
            return _checked(opener, path)
        except ImportError:
            continue
    raise VideoError(
        f"{path}: nothing installed can read videos. Install decord (it has wheels for Linux and Windows on "
        "x86), or torchcodec."
    )


def _checked(opener: Callable[[Path], VideoReader], path: Path) -> VideoReader:
    try:
        video = opener(path)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # the libraries have no common errors
        raise VideoError(f"{path}: cannot be read as a video ({first_line(error)}).") from error
    if len(video) == 0:
        raise VideoError(f"{path}: holds no frame.")
    return video


def uniform_indices(frames: int, count: int) -> list[int]:
    """Return the indices of the middle frames of `count` equal spans; a short video repeats frames.

    >>> uniform_indices(80, 8)
    [5, 15, 25, 35, 45, 55, 65, 75]
    >>> uniform_indices(2, 4)
    [0, 0, 1, 1]
    """
    return [min(frames - 1, int((2 * n + 1) * frames / (2 * count))) for n in range(count)]


def random_indices(frames: int, count: int) -> list[int]:
    """Return the index of a random frame of each of `count` equal spans (torch's global generator)."""
    draws = torch.rand(count).tolist()
    return [min(frames - 1, int((n + draw) * frames / count)) for n, draw in enumerate(draws)]
