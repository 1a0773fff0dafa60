"""Matching of annotated names with the files in the image folder, before any of them is opened."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_lite.common.media.images import IMAGE_SUFFIXES
from lavis_lite.common.registry import nearest
from lavis_lite.datasets.annotations.errors import AnnotationError, listed

logger = logging.getLogger(__name__)

# A hint compares a missing name with at most so many others.
_COMPARED = 2000


def folded(name: str) -> str:
    """Return a name without capitals and with composed accents, as names are compared.

    >>> folded("Cafe\\u0301.JPG") == folded("caf\\xe9.jpg")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def media_of(record: Mapping[str, Any]) -> list[str]:
    """Return the image or video files of a checked record.

    >>> media_of({"image": "a.jpg"}), media_of({"images": ["a.jpg", "b.jpg"]}), media_of({"video": "a.mp4"})
    (['a.jpg'], ['a.jpg', 'b.jpg'], ['a.mp4'])
    """
    value = record[_media_key(record)]
    return [value] if isinstance(value, str) else value


def renamed(record: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a checked record with the names of its files replaced by those in `names`."""
    key = _media_key(record)
    files = [names.get(name, name) for name in media_of(record)]
    return {**record, key: files[0] if isinstance(record[key], str) else files}


def _media_key(record: Mapping[str, Any]) -> str:
    return next(key for key in ("image", "images", "video") if key in record)


class _Folder:
    """The names in one folder; none if it cannot be read."""

    def __init__(self, path: Path) -> None:
        try:
            self.names = {entry.name for entry in os.scandir(path)}
        except OSError:
            self.names = set()

    @cached_property
    def by_folded(self) -> dict[str, list[str]]:
        """Folded name -> names."""
        groups: dict[str, list[str]] = {}
        for name in sorted(self.names):
            groups.setdefault(folded(name), []).append(name)
        return groups

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """Folded name without suffix -> names of images."""
        groups: dict[str, list[str]] = {}
        for name in sorted(self.names):
            path = PurePosixPath(name)
            if path.suffix.lower() in IMAGE_SUFFIXES:
                groups.setdefault(folded(path.stem), []).append(name)
        return groups

    def similar(self, name: str) -> list[str]:
        """Return `name` if it exists, else the names that differ only in capitals or accents."""
        return [name] if name in self.names else self.by_folded.get(folded(name), [])


class ImageFolder:
    """Looks up annotated names below a folder, listing each subfolder once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[str, _Folder] = {}

    def folder(self, path: str) -> _Folder:
        """Return the names in `path`, a folder below the root ("" for the root)."""
        if path not in self._folders:
            self._folders[path] = _Folder(self.root / path)
        return self._folders[path]

    def files_of(self, name: str) -> list[str]:
        """Return the file called `name`, else those that differ in capitals, accents or a missing suffix."""
        folder, _, last = name.rpartition("/")
        if last in self.folder(folder).names:
            return [name]
        *parents, last = PurePosixPath(name).parts
        folders = [""]
        for parent in parents:
            folders = [f"{path}{entry}/" for path in folders for entry in self._at(path).similar(parent)]
        return [
            path + entry
            for path in folders
            for entry in self._at(path).similar(last) or self._at(path).by_stem.get(folded(last), [])
        ]

    def _at(self, prefix: str) -> _Folder:
        return self.folder(prefix.rstrip("/"))

    def hint(self, name: str) -> str:
        """Return what a missing image was probably meant to be."""
        parts = PurePosixPath(name).parts
        for count in range(1, len(parts)):
            folder, rest = "/".join(parts[:count]), "/".join(parts[count:])
            if (self.root / rest).exists():
                above = [path for path in self.root.absolute().parents if (path / name).exists()]
                other = f", or set images to {str(above[0])!r}" if above else ""
                return f"{rest!r} is there: take {folder + '/'!r} out of the names{other}"
        for folder in sorted(self.folder("").names)[:_COMPARED]:
            if (self.root / folder / name).is_file():
                return f"it is in {folder!r}: set images to {str(self.root / folder)!r}"
        here = self.folder(name.rpartition("/")[0])
        others = here.by_stem.get(folded(PurePosixPath(name).stem), [])
        if others:
            return f"{others[0]!r} is there, with another suffix"
        close = nearest(parts[-1], sorted(here.names)[:_COMPARED])
        if close:
            return f"the nearest name there is {close[0]!r}"
        images = sorted(n for n in self.folder("").names if n.lower().endswith(IMAGE_SUFFIXES))
        return f"the folder holds {listed(images, limit=3)}" if images else "the folder itself holds no image"


@dataclass
class NameMatch:
    """The result of `locate`.

    Attributes:
        renamed: annotated name -> path of its file below the folder, where they differ.
        missing: annotated names without a file.
    """

    renamed: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def locate(names: Iterable[str], root: Path, what: str, refuse_missing: bool = True) -> NameMatch:
    """Look up the files of all annotated images, and log missing and renamed ones.

    Args:
        what: the data set and split, as messages name it.
        refuse_missing: raise an error if most images are missing.

    Raises:
        AnnotationError: most images are missing, or a name could mean several files.
    """
    folder = ImageFolder(root)
    names = list(dict.fromkeys(names))
    match = NameMatch()
    ambiguous: dict[str, list[str]] = {}
    for name in names:
        files = folder.files_of(name)
        if len(files) > 1:
            ambiguous[name] = files
        elif not files:
            match.missing.append(name)
        elif files != [name]:
            match.renamed[name] = files[0]
    if ambiguous:
        name, files = next(iter(ambiguous.items()))
        more = f"; {len(ambiguous)} names are like that" if len(ambiguous) > 1 else ""
        raise AnnotationError(
            f"{what}: image {name!r} could be {' or '.join(map(repr, files[:3]))} in {root}{more}. "
            "Write the exact names."
        )
    if match.missing:
        first = match.missing[0]
        text = (
            f"{what}: {len(match.missing)} of {len(names)} images are not in {root}: "
            f"{listed(match.missing)}. Of {first!r}: {folder.hint(first)}."
        )
        if refuse_missing and len(match.missing) * 2 > len(names):
            raise AnnotationError(text)
        logger.warning("%s", text)
    if match.renamed:
        name, file = next(iter(match.renamed.items()))
        logger.warning(
            "%s: %d of %d names differ from those of the files in %s (%s); the files are used: %r is %r.",
            what, len(match.renamed), len(names), root, difference(name, file), name, file,
        )  # fmt: skip
    return match


def difference(name: str, file: str) -> str:
    """Describe how two names of the same file differ.

    >>> difference("a.JPG", "a.jpg"), difference("a", "a.jpg")
    ('capitals', 'a missing suffix')
    """
    if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", file):
        return "composed and decomposed accents"
    if name.casefold() == file.casefold():
        return "capitals"
    return "a missing suffix" if file.startswith(name) else "capitals, accents, spaces, or a missing suffix"
