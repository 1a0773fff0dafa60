"""Checks of annotation records."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from lavis_lite.common.decoding import lone_surrogate
from lavis_lite.datasets.annotations.errors import AnnotationError, ErrorList, Records
from lavis_lite.datasets.annotations.keys import CAPTION_KEYS, IMAGE_KEYS, value_of

Captions = Literal["one", "any", "optional"]

_DRIVE = re.compile(r"[A-Za-z]:/")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# How other programs write a missing value as a text.
_NO_VALUE = frozenset(("nan", "none", "null", "n/a", "#n/a", "<na>"))


def check_caption_records(
    records: Records, captions: Captions, *, image_root: Path | None = None, refuse_no_value: bool = False
) -> list[dict[str, Any]]:
    """Return `records` with the keys "image" (a relative path) and "caption", each checked.

    Args:
        captions: "one" for a text, "any" for a list of texts (or one, which becomes a list), "optional"
            for a list that may be empty or missing.
        image_root: the image folder, if absolute paths inside it are allowed.
        refuse_no_value: treat a caption like "nan" or "None" as an error.

    Raises:
        AnnotationError: invalid records; names file, record and key.
    """

    def check_text(text: Any, where: str) -> str:
        text = text_of(text, where)
        if refuse_no_value and text.strip().lower() in _NO_VALUE:
            raise AnnotationError(
                f"{where}: {text!r} stands for a missing value; remove the entry or write a caption."
            )
        return text

    def check(record: Mapping[str, Any], where: str) -> dict[str, Any]:
        image = image_of(value_of(record, IMAGE_KEYS, where), where, image_root)
        caption = value_of(record, CAPTION_KEYS, where, required=captions != "optional")
        where = f"{where}, key 'caption'"
        if captions == "one":
            if isinstance(caption, list):
                raise AnnotationError(f"{where}: expected one text, found a list; give one entry a caption.")
            return {**record, "image": image, "caption": check_text(caption, where)}
        texts = caption if isinstance(caption, list) else [caption]
        if not texts and captions == "any":
            raise AnnotationError(f"{where}: the list of captions is empty.")
        return {**record, "image": image, "caption": [check_text(text, where) for text in texts]}

    return check_each(records, check)


def check_each(
    records: Records, check: Callable[[Mapping[str, Any], str], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return ``check(record, where)`` of each record; `where` is what its errors start with.

    Raises:
        AnnotationError: records that are not objects, or that `check` refuses; all of them in one message.
    """
    checked = []
    errors = ErrorList(records.path, records.unit)
    for index, record in enumerate(records.records):
        label = records.label(index)
        where = f"{records.path}: {records.unit} {label}"
        if not isinstance(record, Mapping):
            errors.add(label, f": expected an object, found {record!r:.80}.")
            continue
        try:
            checked.append(check(record, where))
        except AnnotationError as error:
            errors.add(label, str(error).removeprefix(where))
    errors.raise_if_any()
    return checked


def image_of(image: Any, where: str, image_root: Path | None = None) -> str:
    """Return the path of an image relative to its folder.

    Args:
        image_root: the folder, if absolute paths inside it are allowed.

    Raises:
        AnnotationError: not a path, or a path that leaves the folder.
    """
    where = f"{where}, key 'image'"
    if not isinstance(image, str) or not image.strip():
        raise AnnotationError(f"{where}: expected a file name, found {image!r:.80}.")
    name = image.replace("\\", "/")
    try:
        is_file_name = b"\0" not in os.fsencode(name)  # names that are not UTF-8 are allowed
    except UnicodeEncodeError:
        is_file_name = False
    if not is_file_name:
        raise AnnotationError(f"{where}: {image!r:.80} holds a character that no file name can have.")
    if _ADDRESS.match(name):
        raise AnnotationError(
            f"{where}: {image!r:.80} is an address; download the images, and give their file names."
        )
    path = PurePosixPath(name)
    if image_root is not None and path.is_relative_to(image_root.absolute().as_posix()):
        path = path.relative_to(image_root.absolute().as_posix())
    # A colon alone is part of a name, but on Windows "C:a.jpg" is on another drive.
    drive = _DRIVE.match(name) or (os.name == "nt" and ":" in path.parts[0])
    if path.is_absolute() or ".." in path.parts or drive or not path.parts:
        hint = _hint(PurePosixPath(name), image_root) if image_root is not None else ""
        raise AnnotationError(
            f"{where}: {image!r} leaves the image folder; give a path relative to it.{hint}"
        )
    return str(path)


def _hint(path: PurePosixPath, image_root: Path) -> str:
    """Return a hint that names the end of `path` that exists below `image_root`, if any."""
    for count in range(1, len(path.parts)):
        end = PurePosixPath(*path.parts[count:])
        if ".." not in end.parts and (image_root / end).is_file():
            return f" {str(end)!r} is there: take {str(path)[: -len(str(end))]!r} out of the names."
    return ""


def text_of(text: Any, where: str) -> str:
    """Return `text`.

    Raises:
        AnnotationError: not a text, an empty one, or one that cannot be written to a file.
    """
    if not isinstance(text, str):
        raise AnnotationError(f"{where}: expected a text, found {text!r:.80}.")
    if not text.strip():
        raise AnnotationError(f"{where}: is empty; remove the entry or write a caption.")
    surrogate = lone_surrogate(text)
    if surrogate is not None:
        raise AnnotationError(
            f"{where}: holds half a character (the lone surrogate \\u{ord(text[surrogate]):04x}); the text "
            "was probably cut within an emoji. Remove it."
        )
    if "\0" in text:
        raise AnnotationError(f"{where}: holds a NUL character; remove it.")
    return text


def group_by_image(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one record for each image, in order of first appearance; "caption" lists all its captions."""
    groups: dict[str, dict[str, Any]] = {}
    for record in records:
        captions = record["caption"] if isinstance(record["caption"], list) else [record["caption"]]
        groups.setdefault(record["image"], {**record, "caption": []})["caption"] += captions
    return list(groups.values())
