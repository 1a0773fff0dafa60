"""Records, checked before anything is trained on them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_lite.datasets.annotations.errors import AnnotationError, ErrorList, Records
from lavis_lite.datasets.annotations.names import CAPTION_KEYS, IMAGE_KEYS, value_of

_SURROGATE = re.compile("[\ud800-\udfff]")
_DRIVE = re.compile(r"[A-Za-z]:/")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# How other programs write a value that is not there into a text.
_NO_VALUE = frozenset(("nan", "none", "null", "n/a", "#n/a", "<na>"))


def check_caption_records(
    records: Records, captions: str, *, image_root: Path | None = None, refuse_no_value: bool = False
) -> list[dict[str, Any]]:
    """Return `records` with the keys "image" (a relative path) and "caption", each checked.

    Args:
        captions: "one" for a text, "many" for a list of texts, "any" for either, "optional" for
            either or none.
        image_root: the image folder, if absolute paths that lie in it are allowed.
        refuse_no_value: whether a caption like "nan" or "None" is an error.

    Raises:
        AnnotationError: names file, place and key of the errors.
    """

    def check(record: Mapping[str, Any], where: str) -> dict[str, Any]:
        image = value_of(record, IMAGE_KEYS, where)
        caption = value_of(record, CAPTION_KEYS, where, required=captions != "optional")
        return {
            **record,
            "image": image_of(image, where, image_root),
            "caption": _caption(caption, captions, where, refuse_no_value),
        }

    return check_each(records, check)


def check_each(
    records: Records, check: Callable[[Mapping[str, Any], str], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return what `check` makes of each record and of the place that its errors should begin with.

    Raises:
        AnnotationError: records that are no objects, or that `check` refuses; all of them in one message.
    """
    checked = []
    errors = ErrorList(records.path, records.unit)
    for index, record in enumerate(records.records):
        where = records.where(index)
        if not isinstance(record, Mapping):
            errors.add(records.label(index), f": expected an object, found {record!r:.80}.")
            continue
        try:
            checked.append(check(record, where))
        except AnnotationError as error:
            errors.add(records.label(index), str(error).removeprefix(where))
    errors.raise_if_any()
    return checked


def image_of(image: Any, where: str, image_root: Path | None = None) -> str:
    """Return the path of an image relative to its folder.

    Args:
        image_root: the folder, if absolute paths that lie in it are allowed.

    Raises:
        AnnotationError: no path, or one that leaves the folder.
    """
    where = f"{where}, key 'image'"
    if not isinstance(image, str) or not image.strip():
        raise AnnotationError(f"{where}: expected a file name, found {image!r:.80}.")
    name = image.replace("\\", "/")
    if "\0" in name or not _is_file_name(name):
        raise AnnotationError(f"{where}: {image!r:.80} holds a character that no file name can have.")
    if _ADDRESS.match(name):
        raise AnnotationError(
            f"{where}: {image!r:.80} is an address; download the images, and give their file names."
        )
    path = PurePosixPath(name)
    if path.is_absolute() and image_root is not None:
        path = _inside(path, image_root)
    # A colon alone is part of a name, but on Windows "C:a.jpg" is on another drive.
    drive = _DRIVE.match(name) or (os.name == "nt" and ":" in path.parts[0])
    if path.is_absolute() or ".." in path.parts or drive or not path.parts:
        hint = _hint(PurePosixPath(name), image_root) if image_root is not None else ""
        raise AnnotationError(
            f"{where}: {image!r} leaves the image folder; give a path relative to it.{hint}"
        )
    return str(path)


def _is_file_name(name: str) -> bool:
    try:
        os.fsencode(name)  # which allows what names that are not UTF-8 are read as
    except UnicodeEncodeError:
        return False
    return True


def _inside(path: PurePosixPath, image_root: Path) -> PurePosixPath:
    root = PurePosixPath(image_root.absolute().as_posix())
    return path.relative_to(root) if path.is_relative_to(root) else path


def _hint(path: PurePosixPath, image_root: Path) -> str:
    """Say which end of a path from elsewhere is there."""
    for count in range(1, len(path.parts)):
        end = PurePosixPath(*path.parts[count:])
        if ".." not in end.parts and (image_root / end).is_file():
            return f" {str(end)!r} is there: take {str(path)[: -len(str(end))]!r} out of the names."
    return ""


def _caption(caption: Any, expected: str, where: str, refuse_no_value: bool) -> str | list[str]:
    where = f"{where}, key 'caption'"
    if isinstance(caption, list):
        if expected == "one":
            raise AnnotationError(f"{where}: expected one text, found a list; give one entry a caption.")
        if not caption and expected != "optional":
            raise AnnotationError(f"{where}: the list of captions is empty.")
        return [_caption_text(text, where, refuse_no_value) for text in caption]
    text = _caption_text(caption, where, refuse_no_value)
    return text if expected == "one" else [text]


def _caption_text(text: Any, where: str, refuse_no_value: bool) -> str:
    text = text_of(text, where)
    if refuse_no_value and text.strip().lower() in _NO_VALUE:
        raise AnnotationError(
            f"{where}: {text!r} stands for a missing value; remove the entry or write a caption."
        )
    return text


def text_of(text: Any, where: str) -> str:
    """Return `text`.

    Raises:
        AnnotationError: no text, an empty one, or one that cannot be written to a file.
    """
    if not isinstance(text, str):
        raise AnnotationError(f"{where}: expected a text, found {text!r:.80}.")
    if not text.strip():
        raise AnnotationError(f"{where}: is empty; remove the entry or write a caption.")
    surrogate = _SURROGATE.search(text)
    if surrogate:
        raise AnnotationError(
            f"{where}: holds half a character (the lone surrogate \\u{ord(surrogate[0]):04x}), as texts have "
            "that were cut within an emoji; remove it."
        )
    if "\0" in text:
        raise AnnotationError(f"{where}: holds a NUL character; remove it.")
    return text


def group_by_image(records: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield one record an image, in order of first appearance, "caption" holding all its captions."""
    groups: dict[str, dict[str, Any]] = {}
    for record in records:
        captions = record["caption"] if isinstance(record["caption"], list) else [record["caption"]]
        group = groups.setdefault(record["image"], {**record, "caption": []})
        group["caption"] += captions
    yield from groups.values()
