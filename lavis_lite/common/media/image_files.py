"""Image files in folders: listing them, and opening them in worker processes."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.distributed import leave_signals_to_parent, start_workers
from lavis_lite.common.files import first_line, kind_of, printable
from lavis_lite.common.media.images import UNREADABLE_IMAGE_SUFFIXES, ImageError, image_suffixes, open_image
from lavis_lite.common.registry import nearest

logger = logging.getLogger(__name__)

# Folders of systems and servers, in lower case; names that start with a dot are hidden, too.
HOUSEKEEPING_FOLDERS = frozenset(
    {
        "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "__macosx",
        "$recycle.bin", "system volume information", "lost+found", "network trash folder", "temporary items",
    }
)  # fmt: skip
SHOWN = 5
# What a listing leaves out, each with the level to log it at, and what to do.
_HIDDEN = "hidden files and folders"
_REPEATED = "links to folders that are listed already, or that hold this one"
_NO_SUFFIX = "files without a suffix"
_UNREADABLE = "pictures that cannot be read here"
_BROKEN_LINKS = "links to nothing"
_UNREADABLE_FOLDERS = "folders that cannot be read"
_LEFT_OUT = {
    _HIDDEN: (logging.INFO, ""),
    _REPEATED: (logging.INFO, ""),
    _NO_SUFFIX: (logging.INFO, " Name them one by one to use them."),
    _UNREADABLE: (logging.WARNING, " Convert them to JPEG or PNG."),
    _BROKEN_LINKS: (logging.WARNING, ""),
    _UNREADABLE_FOLDERS: (logging.WARNING, ""),
}


class ImageFile(NamedTuple):
    """A file, and its processed image or the reason why there is none."""

    path: Path
    image: Tensor | None
    error: str


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """Return the image files in `paths`, and those below the folders among them.

    A file in `paths` is returned as it is. Of a folder, the files with one of `image_suffixes` are
    returned, in the byte order of their paths; what is left out is logged (see `list_folder`).

    Raises:
        ConfigError: a path that does not exist or is not a file or folder, or no image at all.
    """
    files: list[Path] = []
    listings: list[FolderListing] = []
    for path in paths:
        if _kind(path) == "folder":
            listings.append(list_folder(path))
            files += listings[-1].files
        else:
            files.append(Path(path))
    if not files:
        left_out = " ".join(text for listing in listings for _, text in listing.messages())
        raise ConfigError(
            f"{', '.join(map(printable, paths))}: holds no image ({', '.join(sorted(image_suffixes()))}). "
            f"{left_out}".rstrip()
        )
    for listing in listings:
        listing.log()
    return list(dict.fromkeys(files))


@dataclass
class FolderListing:
    """The images in a folder, and what was left out.

    Attributes:
        folder: all paths begin with it.
        files: the images, in the byte order of their paths.
        left_out: the other paths, by reason.
    """

    folder: Path
    files: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=lambda: {reason: [] for reason in _LEFT_OUT})

    def messages(self) -> list[tuple[int, str]]:
        """Return a logging level and a sentence for each reason."""
        messages = []
        for reason, (level, hint) in _LEFT_OUT.items():
            paths = sorted(self.left_out[reason], key=os.fsencode)
            if reason == _UNREADABLE:
                kinds = Counter(path.suffix.lower() for path in paths)
                reason += f" ({', '.join(f'{count} {suffix}' for suffix, count in sorted(kinds.items()))})"
                if kinds.keys() & {".heic", ".heif", ".hif"}:
                    hint = f"{hint[:-1]}, or install pillow-heif to read .heic."
            if paths:
                names = ", ".join(printable(path.relative_to(self.folder)) for path in paths[:SHOWN])
                more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
                messages.append((level, f"Left out {reason}: {len(paths)} ({names}{more}).{hint}"))
        return messages

    def log(self) -> None:
        """Log what was left out, once in a process however often the folder is listed."""
        for level, text in self.messages():
            log_once(level, f"{printable(self.folder)}: {text}")


def list_folder(folder: str | Path, recursive: bool = True) -> FolderListing:
    """List the images in a folder, the same way on every file system.

    Hidden files and folders (``._a.jpg``, ``.ipynb_checkpoints``) and `HOUSEKEEPING_FOLDERS` are left
    out. Links are followed; a folder that several paths lead to is listed once, by its own name if it is
    in `folder`. A pipe, device or broken link with the name of an image is listed, and refused when it
    is opened.

    Args:
        recursive: list subfolders, too.

    Raises:
        ConfigError: the folder cannot be read.
    """
    listing = FolderListing(Path(folder))
    suffixes = image_suffixes()
    # a link to a parent of this folder would add its neighbors
    listed = {_identity(parent) for parent in listing.folder.resolve().parents}
    folders: list[Path] = [listing.folder]
    links: list[Path] = []
    while folders or links:
        # links come last, so that a folder is listed by its own name
        current = folders.pop() if folders else links.pop()
        for entry in _entries(current, listed, listing):
            path = current / entry.name
            if not _is_folder(entry):
                _add_file(listing, path, entry.is_symlink(), suffixes)
            elif is_housekeeping(entry.name):
                listing.left_out[_HIDDEN].append(path)
            elif recursive:
                (links if entry.is_symlink() else folders).append(path)
        links.sort(key=os.fsencode, reverse=True)
    listing.files.sort(key=os.fsencode)
    return listing


def _add_file(listing: FolderListing, path: Path, is_link: bool, suffixes: frozenset[str]) -> None:
    suffix, is_hidden = path.suffix.lower(), path.name.startswith(".")
    if suffix in suffixes or suffix in UNREADABLE_IMAGE_SUFFIXES:
        if is_hidden:
            listing.left_out[_HIDDEN].append(path)
        else:
            (listing.files if suffix in suffixes else listing.left_out[_UNREADABLE]).append(path)
    elif not is_hidden and is_link and _leads_nowhere(path):
        listing.left_out[_BROKEN_LINKS].append(path)
    elif not is_hidden and not suffix:
        listing.left_out[_NO_SUFFIX].append(path)


def _entries(folder: Path, listed: set[tuple[int, int]], listing: FolderListing) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, none if it was listed before or cannot be read."""
    try:
        identity = _identity(folder)
        if identity in listed:
            listing.left_out[_REPEATED].append(folder)
            return []
        listed.add(identity)
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        if folder == listing.folder:
            raise ConfigError(f"{printable(folder)}: cannot be read ({first_line(error)}).") from error
        listing.left_out[_UNREADABLE_FOLDERS].append(folder)
        return []


def _identity(folder: Path) -> tuple[int, int]:
    """Return the same value for all paths to a folder."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _leads_nowhere(link: Path) -> bool:
    try:
        link.stat()
    except OSError:
        return True
    return False


def is_housekeeping(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or one of `HOUSEKEEPING_FOLDERS`."""
    return name.startswith(".") or name.lower() in HOUSEKEEPING_FOLDERS


@cache
def log_once(level: int, text: str) -> None:
    """Log `text`, unless this process has logged it before."""
    logger.log(level, "%s", text)


def _kind(path: str | Path) -> str:
    """Return "file" or "folder".

    Raises:
        ConfigError: nothing exists at `path`, or something else.
    """
    if not str(path):
        raise ConfigError("a path to images is empty; name a file or a folder (the current one is .).")
    name = printable(path)
    try:
        kind = kind_of(Path(path).stat().st_mode)
    except (OSError, ValueError) as error:
        if Path(path).is_symlink():
            raise ConfigError(f"{name}: is a link to a file or folder that is not there.") from None
        if not isinstance(error, FileNotFoundError):
            raise ConfigError(f"{name}: cannot be read ({first_line(error)}).") from error
        raise ConfigError(f"{name}: no such file or folder.{_nearest_name(Path(path))}") from None
    if kind not in ("file", "folder"):
        raise ConfigError(f"{name}: is a {kind}, neither a file nor a folder.")
    return kind


def _nearest_name(path: Path) -> str:
    """Return the end of an error that suggests an existing path."""
    while not path.parent.is_dir() and path != path.parent:
        path = path.parent
    with contextlib.suppress(OSError):
        near = nearest(path.name, [other.name for other in path.parent.iterdir()])
        if near:
            return f" Did you mean {printable(path.parent / near[0])}?"
    return ""


def read_images(
    files: Sequence[Path], processor: Callable[..., Tensor], batch_size: int, num_workers: int
) -> Iterator[list[ImageFile]]:
    """Yield `files` in order, opened and processed, in lists of `batch_size`."""
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
    """Return the images as arrays, which are sent through the worker's pipe.

    Tensors are sent by a thread of the worker, which prints long errors if its parent is stopped meanwhile.
    """
    return [(item._replace(image=None), None if item.image is None else item.image.numpy()) for item in batch]


class _Files(Dataset[ImageFile]):
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
