"""JSON documents and JSON lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_lite.common.files import first_line
from lavis_lite.datasets.annotations.errors import AnnotationError, ErrorList, Records
from lavis_lite.datasets.annotations.layouts import records_of
from lavis_lite.datasets.annotations.text import LINE_END


class _RepeatedKeys(dict[str, Any]):
    """A JSON object that has keys more than once; `repeated` lists them."""

    repeated: Sequence[str] = ()


def parse_json(text: str, path: Path, lines_first: bool = False) -> Records:
    """Return the records of a JSON document, or of JSON lines.

    Args:
        lines_first: read JSON lines if the first line is an object by itself.

    Raises:
        AnnotationError: not JSON, a repeated key in an object, or an unknown layout.
    """
    if not text.strip():
        return Records(path, [])
    if lines_first and not text.lstrip().startswith("["):
        lines = LINE_END.split(text)
        if _is_object(next(line for line in lines if line.strip())):
            return _parse_lines(lines, path)
    repeated: list[str] = []
    try:
        content = _decoder(repeated).decode(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _parse_lines(LINE_END.split(text), path)
        raise AnnotationError(
            f"{path}: is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: is not valid JSON: {first_line(error)}") from error
    if repeated:
        raise AnnotationError(_repeated_message(content, repeated, path))
    return records_of(content, path)


def _parse_lines(lines: Sequence[str], path: Path) -> Records:
    errors = ErrorList(path, "line")
    records, numbers = [], []
    repeated: list[str] = []
    decoder = _decoder(repeated)
    for number, line in enumerate(lines, start=1):
        line = line.lstrip("\ufeff")  # concatenated files have byte order marks inside
        if not line.strip():
            continue
        repeated.clear()
        try:
            records.append(decoder.decode(line))
            numbers.append(number)
        except json.JSONDecodeError as error:
            errors.add(number, f": is not valid JSON: {error.msg} at column {error.colno}.")
        except (ValueError, RecursionError) as error:
            errors.add(number, f": is not valid JSON: {first_line(error)}.")
        if repeated:
            errors.add(number, _repeated_text(repeated))
    errors.raise_if_any()
    return Records(path, records, "line", numbers)


def _decoder(repeated: list[str]) -> json.JSONDecoder:
    """Return a decoder that appends to `repeated` the keys that an object has more than once."""

    def to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            content = _RepeatedKeys(content)
            content.repeated = [k for k, count in Counter(k for k, _ in pairs).items() if count > 1]
            repeated.extend(content.repeated)
        return content

    return json.JSONDecoder(object_pairs_hook=to_dict)


def _repeated_message(content: Any, repeated: Sequence[str], path: Path) -> str:
    """Return an error that names the records with repeated keys, or the file names that are repeated."""
    if not isinstance(content, list):
        names = ", ".join(repr(key) for key in repeated[:5])
        more = f" and {len(repeated) - 5} more" if len(repeated) > 5 else ""
        return (
            f"{path}: has more than one entry for {names}{more}, of which only the last would count. Give "
            'such an image one entry with a list: {"a.jpg": ["one caption", "another"]}.'
        )
    errors = ErrorList(path, "annotation")
    for index, record in enumerate(content):
        if keys := _keys_repeated_in(record):
            errors.add(index, _repeated_text(keys))
    return errors.message()


def _keys_repeated_in(record: Any) -> list[str]:
    keys: list[str] = []
    values = [record]
    while values:
        value = values.pop()
        keys += getattr(value, "repeated", ())
        if isinstance(value, Mapping | list):
            values += value.values() if isinstance(value, Mapping) else value
    return keys


def _repeated_text(keys: Sequence[str]) -> str:
    return (
        f": has the key {keys[0]!r} more than once, of which only the last would count; remove all but one."
    )


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line.lstrip("\ufeff")), Mapping)
    except (ValueError, RecursionError):
        return False
