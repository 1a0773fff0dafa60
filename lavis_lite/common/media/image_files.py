"""Image files below folders, opened in worker processes; those that cannot be read are named, not lost."""

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

# Folders that systems and servers keep for themselves, in lower case; so is all whose name starts with a dot.
HOUSEKEEPING_FOLDERS = frozenset(
    {
        "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "__macosx",
        "$recycle.bin", "system volume information", "lost+found", "network trash folder", "temporary items",
    }
)  # fmt: skip
SHOWN = 5


class ImageFile(NamedTuple):
    """A file, and its image as the processor made it, or the reason why there is none."""

    path: Path
    image: Tensor | None
    error: str


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """Return the image files that `paths` name, and those below the folders among them.

    A file that is named is taken as it is. Of a folder come the files whose suffix is one of
    `image_suffixes`, in the byte order of their paths; what is left out is logged (see `list_folder`).

    Raises:
        ConfigError: a path that is not there, or that is no file or folder; or no image at all.
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
        left_out = " ".join(text for listing in listings for _, text in listing.left_out())
        raise ConfigError(
            f"{', '.join(map(printable, paths))}: holds no image ({', '.join(sorted(image_suffixes()))}). "
            f"{left_out}".rstrip()
        )
    for listing in listings:
        listing.log()
    return list(dict.fromkeys(files))


def list_folder(folder: str | Path, recursive: bool = True) -> FolderListing:
    """List the images in a folder, the same way on every file system.

    Hidden files and folders (``._a.jpg``, ``.ipynb_checkpoints``) and `HOUSEKEEPING_FOLDERS` are left
    out. Links are followed; a folder that several paths lead to is listed once, by its own name if
    it lies in `folder`. A file of another kind under an image's name (a pipe, a device, a link to
    nothing) is listed, and refused when it is opened.

    Args:
        recursive: list the folders in it, too.

    Raises:
        ConfigError: the folder cannot be read.
    """
    listing = FolderListing(Path(folder))
    suffixes = image_suffixes()
    # a link to a folder that holds this one would bring in its neighbors
    listed = {_identity(parent) for parent in listing.folder.resolve().parents}
    folders, links = [listing.folder], []
    while folders or links:
        # what lies in the folder itself comes first, so that links do not decide about names
        current = folders.pop() if folders else links.pop()
        for entry in _entries(current, listed, listing):
            path = current / entry.name
            if not _is_folder(entry):
                listing.add_file(path, entry.is_symlink(), suffixes)
            elif is_housekeeping(entry.name):
                listing.hidden.append(path)
            elif recursive:
                (links if entry.is_symlink() else folders).append(path)
        links.sort(key=os.fsencode, reverse=True)
    listing.files.sort(key=os.fsencode)
    return listing


def _entries(folder: Path, listed: set[tuple[int, int]], listing: FolderListing) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, nothing if it is in `listed` or cannot be read; note it in `listing`."""
    try:
        identity = _identity(folder)
        if identity in listed:
            listing.repeated.append(folder)
            return []
        listed.add(identity)
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        if folder == listing.folder:
            raise ConfigError(f"{printable(folder)}: cannot be read ({first_line(error)}).") from error
        listing.unreadable_folders.append(folder)
        return []


def _identity(folder: Path) -> tuple[int, int]:
    """Return what is the same for two paths to one folder."""
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
    """Return whether a file or folder of this name is hidden, or kept by a system for itself."""
    return name.startswith(".") or name.lower() in HOUSEKEEPING_FOLDERS


@dataclass
class FolderListing:
    """The images in a folder, and what was left out of them.

    Attributes:
        folder: what was listed; all paths begin with it.
        files: the images, in the byte order of their paths.
        hidden: hidden files with an image's suffix, and hidden or housekeeping folders.
        unreadable: pictures of kinds that cannot be opened here.
        no_suffix: files whose names have no suffix, which may be anything.
        broken_links: links to nothing, of which it is not known whether they were images.
        unreadable_folders: folders that cannot be read.
        repeated: links to folders that are listed already, or that hold this one.
    """

    folder: Path
    files: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)
    no_suffix: list[Path] = field(default_factory=list)
    broken_links: list[Path] = field(default_factory=list)
    unreadable_folders: list[Path] = field(default_factory=list)
    repeated: list[Path] = field(default_factory=list)

    def add_file(self, path: Path, is_link: bool, suffixes: frozenset[str]) -> None:
        """Add a file to the list that it belongs to by its name; other files than images to none.

        Args:
            is_link: whether `path` is a symbolic link.
            suffixes: of images, in lower case.
        """
        suffix = path.suffix.lower()
        if suffix in suffixes or suffix in UNREADABLE_IMAGE_SUFFIXES:
            if path.name.startswith("."):
                self.hidden.append(path)
            else:
                (self.files if suffix in suffixes else self.unreadable).append(path)
        elif not path.name.startswith("."):
            if is_link and _leads_nowhere(path):
                self.broken_links.append(path)
            elif not suffix:
                self.no_suffix.append(path)

    def left_out(self) -> list[tuple[int, str]]:
        """Return a sentence for each kind of thing that was left out, with its logging level."""
        kinds = Counter(path.suffix.lower() for path in self.unreadable)
        convert = "Convert them to JPEG or PNG"
        if kinds.keys() & {".heic", ".heif", ".hif"}:
            convert += ", or install pillow-heif to read .heic"
        kinds_text = ", ".join(f"{count} {suffix}" for suffix, count in sorted(kinds.items()))
        lists = [
            (logging.INFO, "hidden files and folders", self.hidden, ""),
            (
                logging.INFO,
                "links to folders that are listed already, or that hold this one",
                self.repeated,
                "",
            ),
            (logging.INFO, "files without a suffix", self.no_suffix, " Name them one by one to use them."),
            (
                logging.WARNING,
                f"pictures that cannot be read here ({kinds_text})",
                self.unreadable,
                f" {convert}.",
            ),
            (logging.WARNING, "links to nothing", self.broken_links, ""),
            (logging.WARNING, "folders that cannot be read", self.unreadable_folders, ""),
        ]
        return [
            (level, f"Left out {what}: {len(paths)} ({self._names(paths)}).{remedy}")
            for level, what, paths, remedy in lists
            if paths
        ]

    def log(self) -> None:
        """Log what was left out, once in a process however often the folder is listed."""
        for level, text in self.left_out():
            log_once(level, f"{printable(self.folder)}: {text}")

    def _names(self, paths: Sequence[Path]) -> str:
        ordered = sorted(paths, key=os.fsencode)
        names = ", ".join(printable(path.relative_to(self.folder)) for path in ordered[:SHOWN])
        return names if len(paths) <= SHOWN else f"{names} and {len(paths) - SHOWN} more"


@cache
def log_once(level: int, text: str) -> None:
    """Log `text`, unless this process has logged it before."""
    logger.log(level, "%s", text)


def _kind(path: str | Path) -> str:
    """Return "file" or "folder".

    Raises:
        ConfigError: there is nothing at `path`, or neither of the two.
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
    """Return the end of a message that names what `path` may have been meant for."""
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
