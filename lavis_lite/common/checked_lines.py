"""JSON lines with a checksum each, so that damage is noticed and costs only the damaged lines."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

_HEAD = b'{"crc": "'
_LENGTH = len(_HEAD) + 8


def checked_line(entry: Mapping[str, Any]) -> bytes:
    """Return `entry` as a line of ASCII JSON whose first key, "crc", is the checksum of the rest.

    >>> checked_line({"path": "a.jpg"})
    b'{"crc": "c0e1154f", "path": "a.jpg"}\\n'
    """
    rest = b'", ' + json.dumps(entry).encode()[1:]
    return b"%s%08x%s\n" % (_HEAD, zlib.crc32(rest), rest)


def parse_checked_line(line: bytes) -> dict[str, Any] | None:
    """Return the entry of a line that `checked_line` made, or None for a damaged or different line.

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
        return None  # a forged line with a valid checksum
    entry.pop("crc")
    return entry
