"""Bytes to texts and JSON, exactly as they say it or not at all."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from typing import Any

# The longer marks first: that of UTF-32 begins with that of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def encoding_of(content: bytes) -> str:
    """Return the encoding that the byte order mark of a text names; UTF-8 where it has none.

    Other encodings cannot be told apart, and a guess could change the text.

    >>> encoding_of("é".encode("utf-16")), encoding_of("é".encode())
    ('utf-16', 'utf-8')
    """
    return next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")


def lone_surrogate(text: str) -> int | None:
    r"""Return where a text holds half of a surrogate pair, which no file can hold, or None.

    Texts that were cut within an emoji have it; JSON can express it.

    >>> lone_surrogate("cut \ud83d"), lone_surrogate("whole \U0001f600")
    (4, None)
    """
    match = _SURROGATE.search(text)
    return match.start() if match else None


def unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the keys and values of a JSON object; for ``json.loads(..., object_pairs_hook=unique_keys)``.

    Raises:
        ValueError: a key occurs twice, of which Python would keep the last in silence.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r:.60} occurs twice")
    return content
