"""Names that the columns and keys of annotation files may have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lavis_lite.datasets.annotations.errors import AnnotationError

# In order of preference, where a record has several.
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
# The header of a table is recognized by these names, too.
_OTHER_KEYS = ("images", "question", "question_id", "answer", "label", "video", "video_id", SPLIT_KEY)
KNOWN_KEYS = frozenset((*IMAGE_KEYS, *CAPTION_KEYS, *_OTHER_KEYS))
_LISTED_KEYS = 6  # in an error


def normalized(key: object) -> str:
    """Return a key in lower case with underscores, as keys are compared.

    >>> normalized(" File Name"), normalized("image-path")
    ('file_name', 'image_path')
    """
    return re.sub(r"[\s\-]+", "_", str(key).strip().lower())


def has_any(keys: Iterable[Any], names: Sequence[str]) -> bool:
    """Return whether one of `keys`, normalized, is one of `names`."""
    return any(normalized(key) in names for key in keys)


def value_of(record: Mapping[str, Any], keys: Sequence[str], where: str, required: bool = True) -> Any:
    """Return the value of the first of `keys` that `record` has; an empty list if none is `required`.

    Capitals, spaces and hyphens in the keys of the record make no difference.

    Raises:
        AnnotationError: `record` has none of `keys`.
    """
    for key in keys:
        if record.get(key) is not None:
            return record[key]
    values = {normalized(key): value for key, value in record.items() if value is not None}
    for key in keys:
        if key in values:
            return values[key]
    if not required:
        return []
    for key in record:
        if normalized(key) in keys:
            raise AnnotationError(f"{where}, key {key!r}: has no value (null).")
    raise AnnotationError(_missing_key(record, keys, where))


def _missing_key(record: Mapping[str, Any], keys: Sequence[str], where: str) -> str:
    hint = ""
    if keys == IMAGE_KEYS and "image_id" in record:
        hint = (
            " Images are looked up by file name; a file of results has only numbers: use the annotations "
            "with the file names."
        )
    elif keys == IMAGE_KEYS and has_any(record, ("url", "image_url")):
        hint = " Images are read from a folder: download them, and add the file name of each beside its url."
    more = ", ..." if len(keys) > _LISTED_KEYS else ""
    others = f" (nor {', '.join(keys[1:_LISTED_KEYS])}{more})" if len(keys) > 1 else ""
    return f"{where}: has no {keys[0]!r}{others}; its keys are {', '.join(map(str, record))}.{hint}"
