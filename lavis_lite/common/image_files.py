"""Image files below folders, opened in worker processes; those that cannot be read are named, not lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lavis_lite.common.distributed import leave_signals_to_parent, start_workers
from lavis_lite.common.images import IMAGE_SUFFIXES, ImageError, open_image
from lavis_lite.common.schema import ConfigError


class ImageFile(NamedTuple):
    """A file, and its image as the processor made it, or the reason why there is none."""

    path: Path
    image: Tensor | None
    error: str


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """Return the image files that `paths` name, folders searched through, in a stable order.

    Raises:
        ConfigError: a path that is not there, or no image at all.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        elif path.is_file():
            files.append(path)
        else:
            raise ConfigError(f"{path}: no such file or folder.")
    if not files:
        raise ConfigError(
            f"{', '.join(map(str, paths))}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})."
        )
    return files


def read_images(
    files: Sequence[Path], processor: Callable[..., Tensor], batch_size: int, num_workers: int
) -> Iterator[list[ImageFile]]:
    """Yield `files` in order, opened and processed, `batch_size` at a time."""
    loader = DataLoader(
        _Files(files, processor),
        batch_size=batch_size,
        num_workers=min(num_workers, max(0, len(files) // batch_size)),
        collate_fn=_as_arrays,
        worker_init_fn=leave_signals_to_parent,
    )
    for batch in start_workers(loader):
        yield [
            item._replace(image=None if array is None else torch.from_numpy(array)) for item, array in batch
        ]


def _as_arrays(batch: list[ImageFile]) -> list[tuple[ImageFile, numpy.ndarray | None]]:
    """Return the images apart, as arrays: they come through the worker's pipe.

    A tensor would be handed over by a thread of the worker, which complains at length when its parent is
    stopped in the middle of that.
    """
    return [(item._replace(image=None), None if item.image is None else item.image.numpy()) for item in batch]


class _Files(Dataset):
    def __init__(self, files: Sequence[Path], processor: Callable[..., Tensor]) -> None:
        self.files = files
        self.processor = processor

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> ImageFile:
        path = self.files[index]
        try:
            return ImageFile(path, self.processor(open_image(path)), "")
        except (ImageError, OSError) as error:
            return ImageFile(path, None, str(error))
