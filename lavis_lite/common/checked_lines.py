"""JSON lines that carry their own checksum, so that damage to one is noticed and costs that one alone."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

_HEAD = b'{"crc": "'
_LENGTH = len(_HEAD) + 8


def checked_line(entry: Mapping[str, Any]) -> bytes:
    """Return `entry` as a line of ASCII JSON whose first key, "crc", is the checksum of what follows it.

    >>> checked_line({"path": "a.jpg"})
    b'{"crc": "c0e1154f", "path": "a.jpg"}\\n'
    """
    rest = b'", ' + json.dumps(entry).encode()[1:]
    return b"%s%08x%s\n" % (_HEAD, zlib.crc32(rest), rest)


def parse_checked_line(line: bytes) -> dict[str, Any] | None:
    """Return what `checked_line` was given, or None of a line that is damaged or of another kind.

    >>> parse_checked_line(b'{"crc": "c0e1154f", "path": "a.jpg"}')
    {'path': 'a.jpg'}
    >>> parse_checked_line(b'{"crc": "c0e1154f", "path": "b.jpg"}')
    """
    line = line.removesuffix(b"\n")
    if line[: len(_HEAD)] != _HEAD or line[len(_HEAD) : _LENGTH] != b"%08x" % zlib.crc32(line[_LENGTH:]):
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None  # the checksum of somebody who meant to write this
    entry.pop("crc")
    return entry
