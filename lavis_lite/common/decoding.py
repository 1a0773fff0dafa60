"""Bytes to texts and JSON, without guessing."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from typing import Any

# UTF-32 before UTF-16, whose mark is its beginning.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def encoding_of(content: bytes) -> str:
    """Return the encoding named by a text's byte order mark; UTF-8 if there is none.

    Other encodings cannot be told apart, and a guess could change the text.

    >>> encoding_of("é".encode("utf-16")), encoding_of("é".encode())
    ('utf-16', 'utf-8')
    """
    return next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")


def lone_surrogate(text: str) -> int | None:
    r"""Return the position of half a surrogate pair in a text, which no file can hold, or None.

    JSON can express it; texts that were cut within an emoji contain it.

    >>> lone_surrogate("cut \ud83d"), lone_surrogate("whole \U0001f600")
    (4, None)
    """
    match = _SURROGATE.search(text)
    return match.start() if match else None


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict; for ``json.loads(..., object_pairs_hook=unique_keys)``.

    Raises:
        ValueError: a key occurs twice (Python would silently keep the last).
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated!r:.60} occurs twice")
    return content
