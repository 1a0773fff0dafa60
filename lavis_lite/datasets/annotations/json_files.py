"""JSON and JSON lines, in the layouts that people have."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_lite.common.files import first_line
from lavis_lite.datasets.annotations.errors import AnnotationError, ErrorList, Records
from lavis_lite.datasets.annotations.layouts import records_of
from lavis_lite.datasets.annotations.text import LINE_END

_GAP = re.compile(r"[\s,]*")


def parse_json(text: str, path: Path, lines_first: bool = False) -> Records:
    """Return the records of a JSON document, or of JSON lines.

    Args:
        lines_first: each line is a document of its own, unless the first one is none.

    Raises:
        AnnotationError: not JSON, a key twice in an object, or a layout that is not known; names the place.
    """
    if not text.strip():
        return Records(path, [])
    if lines_first and not text.lstrip().startswith("["):
        lines = LINE_END.split(text)
        first = next(line for line in lines if line.strip())
        if _is_document(first):
            return _parse_lines(lines, path)
    twice: list[str] = []
    try:
        content = _decoder(twice).decode(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _parse_lines(LINE_END.split(text), path)
        raise AnnotationError(f"{path}: is not valid JSON: {_said(error)}") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{path}: is not valid JSON: {first_line(error)}") from error
    if twice:
        raise AnnotationError(_named_twice(content, text, twice, path))
    return records_of(content, path)


def _parse_lines(lines: Sequence[str], path: Path) -> Records:
    errors = ErrorList(path, "line")
    records, numbers = [], []
    for number, line in enumerate(lines, start=1):
        line = line.lstrip("\ufeff")  # as files that were joined have it
        if not line.strip():
            continue
        twice: list[str] = []
        try:
            records.append(_decoder(twice).decode(line))
            numbers.append(number)
        except json.JSONDecodeError as error:
            errors.add(str(number), f": is not valid JSON: {error.msg} at column {error.colno}.")
        except (ValueError, RecursionError) as error:
            errors.add(str(number), f": is not valid JSON: {first_line(error)}.")
        if twice:
            errors.add(str(number), _twice(twice))
    errors.raise_if_any()
    return Records(path, records, "line", numbers)


def _decoder(twice: list[str]) -> json.JSONDecoder:
    """Return a decoder that notes in `twice` each key that an object has more than once."""

    def to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            twice.extend(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        return content

    return json.JSONDecoder(object_pairs_hook=to_dict)


def _named_twice(content: Any, text: str, twice: Sequence[str], path: Path) -> str:
    """Say which record has a key twice, or which file name a list of captions is due to."""
    if not isinstance(content, list):
        names = ", ".join(repr(key) for key in twice[:5])
        more = f" and {len(twice) - 5} more" if len(twice) > 5 else ""
        return (
            f"{path}: has more than one entry for {names}{more}, of which only the last would count. Give "
            'such an image one entry with a list: {"a.jpg": ["one caption", "another"]}.'
        )
    errors = ErrorList(path, "annotation")
    for index, element in enumerate(_elements(text)):
        if element:
            errors.add(str(index), _twice(element))
    return errors.message()


def _elements(text: str) -> list[list[str]]:
    """Return, for each element of a valid JSON list, the keys that it has twice."""
    place = _after_gap(text, text.index("[") + 1)
    elements = []
    while text[place] != "]":
        twice: list[str] = []
        place = _after_gap(text, _decoder(twice).raw_decode(text, place)[1])
        elements.append(twice)
    return elements


def _after_gap(text: str, place: int) -> int:
    gap = _GAP.match(text, place)
    return gap.end() if gap else place


def _twice(keys: Sequence[str]) -> str:
    return (
        f": has the key {keys[0]!r} more than once, of which only the last would count; remove all but one."
    )


def _is_document(line: str) -> bool:
    try:
        return isinstance(json.loads(line.lstrip("\ufeff")), Mapping)
    except (ValueError, RecursionError):
        return False


def _said(error: json.JSONDecodeError) -> str:
    return f"{error.msg} at line {error.lineno}, column {error.colno}."
