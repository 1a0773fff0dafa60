"""The names by which the columns and keys of annotation files go."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lavis_lite.datasets.annotations.errors import AnnotationError

# The first that a record has is used.
IMAGE_KEYS = (
    "image", "file_name", "filename", "image_path", "file", "path", "filepath", "file_path", "image_name",
    "image_file", "image_file_name", "image_filename", "img", "img_path", "img_name", "img_file", "picture",
    "photo",
)  # fmt: skip
CAPTION_KEYS = (
    "caption", "captions", "text", "comment", "description", "sentence", "sentences", "raw", "caption_text",
    "image_caption", "image_description",
)  # fmt: skip
SPLIT_KEY = "split"
# How many of them an error names.
_NAMED_KEYS = 6
# Further names by which the header of a table is recognized.
_OTHER_KEYS = ("images", "question", "question_id", "answer", "label", "video", "video_id", SPLIT_KEY)
KNOWN_KEYS = frozenset((*IMAGE_KEYS, *CAPTION_KEYS, *_OTHER_KEYS))


def normalized(key: str) -> str:
    """Return a key as names are compared.

    >>> normalized(" File Name"), normalized("image-path")
    ('file_name', 'image_path')
    """
    return re.sub(r"[\s\-]+", "_", key.strip().lower())


def has_any(keys: Iterable[Any], names: Sequence[str]) -> bool:
    """Tell whether one of `keys` is one of `names`, written in any way."""
    return any(normalized(str(key)) in names for key in keys)


def value_of(record: Mapping[str, Any], keys: Sequence[str], where: str, required: bool = True) -> Any:
    """Return the value of the first of `keys` that `record` has; an empty list where none is required.

    Capitals, spaces and hyphens in the record's own keys make no difference.

    Raises:
        AnnotationError: it has none of them.
    """
    for key in keys:
        if record.get(key) is not None:
            return record[key]
    same = {normalized(str(key)): value for key, value in record.items() if value is not None}
    for key in keys:
        if key in same:
            return same[key]
    if not required:
        return []
    empty = [key for key in record if normalized(str(key)) in keys]
    if empty:
        raise AnnotationError(f"{where}, key {empty[0]!r}: has no value (null).")
    raise AnnotationError(_missing(record, keys, where))


def _missing(record: Mapping[str, Any], keys: Sequence[str], where: str) -> str:
    names = ", ".join(map(str, record))
    hint = ""
    if keys == IMAGE_KEYS and "image_id" in record:
        hint = (
            " Images are found by file name; if this is a file of results, which has numbers alone, give the "
            "annotations with the file names."
        )
    elif keys == IMAGE_KEYS and has_any(record, ("url", "image_url")):
        hint = (
            " Images are read from a folder: download them, and write the file name of each beside its url."
        )
    others = f" (nor {', '.join(keys[1:_NAMED_KEYS])}{', ...' * (len(keys) > _NAMED_KEYS)})" * (len(keys) > 1)
    return f"{where}: has no {keys[0]!r}{others}; its keys are {names}.{hint}"
