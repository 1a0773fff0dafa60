"""From the names in an annotation file to the files in the image folder, before any is opened."""

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

# More names than that are not compared letter by letter.
_COMPARED = 2000


def folded(name: str) -> str:
    """Return a name without regard to capitals and to how its accents are composed.

    >>> folded("Cafe\\u0301.JPG") == folded("caf\\xe9.jpg")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def media_of(record: Mapping[str, Any]) -> list[str]:
    """Return the names of the files that a checked record is about.

    >>> media_of({"image": "a.jpg"}), media_of({"images": ["a.jpg", "b.jpg"]}), media_of({"video": "a.mp4"})
    (['a.jpg'], ['a.jpg', 'b.jpg'], ['a.mp4'])
    """
    value = record[_media_key(record)]
    return [value] if isinstance(value, str) else value


def renamed(record: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a checked record with the names of its files replaced by those in `names`, if they are there."""
    key = _media_key(record)
    value = record[key]
    files = names.get(value, value) if isinstance(value, str) else [names.get(name, name) for name in value]
    return {**record, key: files}


def _media_key(record: Mapping[str, Any]) -> str:
    return next(key for key in ("image", "images", "video") if key in record)


class _Listing:
    """The names in one folder."""

    def __init__(self, path: Path) -> None:
        try:
            self.names = {entry.name for entry in os.scandir(path)}
        except OSError:
            self.names = set()

    @cached_property
    def by_fold(self) -> dict[str, list[str]]:
        """Folded name -> the names that fold to it."""
        return _grouped((folded(name), name) for name in sorted(self.names))

    def alike(self, name: str) -> list[str]:
        """Return `name` if it is there, or else the names that differ in capitals or accents alone."""
        return [name] if name in self.names else self.by_fold.get(folded(name), [])

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """Folded name without the suffix of an image -> the images."""
        return _grouped(
            (folded(stem), f"{stem}{suffix}")
            for stem, suffix in map(os.path.splitext, sorted(self.names))
            if suffix.lower() in IMAGE_SUFFIXES
        )


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, name in pairs:
        groups.setdefault(key, []).append(name)
    return groups


@dataclass
class NameMatch:
    """What became of the names of a data set.

    Attributes:
        files: annotated name -> path below the folder, of those that are there.
        missing: names of which there is no file.
        ambiguous: name -> the files that it could mean.
    """

    files: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    ambiguous: dict[str, list[str]] = field(default_factory=dict)

    @property
    def renamed(self) -> dict[str, str]:
        """The names that are written otherwise than their files."""
        return {name: file for name, file in self.files.items() if name != file}


class ImageNames:
    """Finds annotated images in a folder, listing each folder once.

    Args:
        root: the image folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[str, _Listing] = {}

    def listing(self, folder: str) -> _Listing:
        """Return the names in `folder`, a path below the root ("" for itself)."""
        if folder not in self._listings:
            self._listings[folder] = _Listing(self.root / folder)
        return self._listings[folder]

    def match(self, names: Iterable[str]) -> NameMatch:
        """Find the file of each name: the very name, or the only one that differs as people's names do."""
        result = NameMatch()
        for name in dict.fromkeys(names):
            folder, _, last = name.rpartition("/")
            files = [name] if last in self.listing(folder).names else self._similar(name)
            if len(files) == 1:
                result.files[name] = files[0]
            elif files:
                result.ambiguous[name] = files
            else:
                result.missing.append(name)
        return result

    def _similar(self, name: str) -> list[str]:
        """Return the files that differ from `name` only in capitals, composed accents or a missing suffix."""
        *parents, last = PurePosixPath(name).parts
        folders = [""]
        for parent in parents:
            folders = [
                f"{folder}{entry}/"
                for folder in folders
                for entry in self.listing(folder.rstrip("/")).alike(parent)
            ]
        files = []
        for folder in folders:
            listing = self.listing(folder.rstrip("/"))
            alike = listing.alike(last) or listing.by_stem.get(folded(last), [])
            files += [folder + entry for entry in alike]
        return files

    def hint(self, name: str) -> str:
        """Say what a missing image was probably meant to be."""
        parts = PurePosixPath(name).parts
        for count in range(1, len(parts)):
            folder, rest = "/".join(parts[:count]), "/".join(parts[count:])
            if (self.root / rest).exists():
                root = self.root.absolute()
                above = [path for path in root.parents if (path / name).exists()][:1]
                other = f", or set images to {str(above[0])!r}" if above else ""
                return f"{rest!r} is there: take {folder + '/'!r} out of the names{other}"
        for folder in sorted(self.listing("").names)[:_COMPARED]:
            if (self.root / folder / name).is_file():
                return f"it is in {folder!r}: set images to {str(self.root / folder)!r}"
        listing = self.listing(name.rpartition("/")[0])
        others = listing.by_stem.get(folded(PurePosixPath(name).stem), [])
        if others:
            return f"{others[0]!r} is there, with another suffix"
        close = nearest(parts[-1], sorted(listing.names)[:_COMPARED])
        if close:
            return f"the nearest name there is {close[0]!r}"
        images = sorted(n for n in self.listing("").names if n.lower().endswith(IMAGE_SUFFIXES))
        return f"the folder holds {listed(images, limit=3)}" if images else "the folder itself holds no image"


def locate(names: Iterable[str], root: Path, what: str, refuse_missing: bool = True) -> NameMatch:
    """Find the files of all annotated images and say what is unusual about them.

    Args:
        what: the data set and split, as messages name it.
        refuse_missing: whether it is an error that most images are missing.

    Raises:
        AnnotationError: most images are not there, or a name means several files.
    """
    folder = ImageNames(root)
    match = folder.match(names)
    if match.ambiguous:
        name, files = next(iter(match.ambiguous.items()))
        more = f"; {len(match.ambiguous)} names are like that" if len(match.ambiguous) > 1 else ""
        raise AnnotationError(
            f"{what}: image {name!r} could be {' or '.join(map(repr, files[:3]))} in {root}{more}. "
            "Write the exact names."
        )
    total = len(match.files) + len(match.missing)
    if match.missing:
        first = match.missing[0]
        text = (
            f"{what}: {len(match.missing)} of {total} images are not in {root}: {listed(match.missing)}. "
            f"Of {first!r}: {folder.hint(first)}."
        )
        if refuse_missing and len(match.missing) * 2 > total:
            raise AnnotationError(text)
        logger.warning("%s", text)
    if match.renamed:
        name, file = next(iter(match.renamed.items()))
        logger.warning(
            "%s: %d of %d names differ from those of the files in %s (%s), which are used: %r is %r.",
            what, len(match.renamed), total, root, difference(name, file), name, file,
        )  # fmt: skip
    return match


def difference(name: str, file: str) -> str:
    """Say how two names that mean the same file differ.

    >>> difference("a.JPG", "a.jpg"), difference("a", "a.jpg")
    ('capitals', 'a missing suffix')
    """
    if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", file):
        return "composed and decomposed accents"
    if name.casefold() == file.casefold():
        return "capitals"
    if file.startswith(name):
        return "a missing suffix"
    return "capitals, accents, spaces, or a missing suffix"
