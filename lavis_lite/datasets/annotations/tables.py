"""CSV and its relatives: rows of cells below a header, separated by commas, semicolons, tabs or bars."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lavis_lite.common.media.images import IMAGE_SUFFIXES
from lavis_lite.datasets.annotations.errors import AnnotationError, ErrorList, Records
from lavis_lite.datasets.annotations.keys import CAPTION_KEYS, IMAGE_KEYS, KNOWN_KEYS, normalized

logger = logging.getLogger(__name__)

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_EXCEL_HINT = re.compile(r"sep=([,;\t|])(\r\n|\r|\n)", re.IGNORECASE)
# Flickr's token files number the captions of an image: "12345.jpg#0".
_NUMBERED = re.compile(r"(.+)#\d+")
_QUOTING = (
    "A text that begins with a quote, or has the separator in it, must stand in quotes as a whole, with the "
    'quotes within it doubled: "a ""red"" circle, on grass".'
)


class _Row(NamedTuple):
    """A row: the number of its first line, its stripped cells, and its lines as they are in the file."""

    line: int
    cells: list[str]
    lines: Sequence[str]


def parse_table(text: str, path: Path) -> Records:
    """Return the rows of a table as records, with their line numbers.

    The separator is the one that splits the header into known names. A table without a header must have
    two columns, one of them image file names. Where the second of two columns is an unquoted text with
    commas, the text is joined again if every comma is followed by a space or stands between digits.

    Raises:
        AnnotationError: no header, a repeated column, or rows that do not fit the header; names the lines.
    """
    first_line = 1
    hint = _EXCEL_HINT.match(text)
    if hint:
        text, first_line = text[hint.end() :], 2
    lines = list(io.StringIO(text, newline=""))
    delimiter = hint[1] if hint else _delimiter(lines)
    rows = _rows(lines, delimiter, first_line, path)
    header = next(rows, None)
    if header is None:
        return Records(path, [])
    names = [normalized(cell) for cell in header.cells]
    if not KNOWN_KEYS.intersection(names):
        return _without_header([header, *rows], path)
    for name in filter(None, names):
        if names.count(name) > 1:
            columns = ", ".join(str(number) for number, other in enumerate(names, 1) if other == name)
            raise AnnotationError(
                f"{path}: line {header.line}: the columns {columns} are all called {name!r}; rename all but "
                "one."
            )
    return _with_header(rows, names, delimiter, path)


def _delimiter(lines: Sequence[str]) -> str:
    """Return the delimiter that splits the first line into most known names, else into image names."""
    first = next((line for line in lines if line.strip()), "")

    def rank(delimiter: str) -> tuple[int, int, bool]:
        cells = [cell.strip().strip('"') for cell in first.split(delimiter)]
        known = len(KNOWN_KEYS.intersection(map(normalized, cells)))
        return known, sum(map(_is_image_name, cells)), delimiter in first

    return max(DELIMITERS, key=rank)


def _rows(lines: Sequence[str], delimiter: str, first_line: int, path: Path) -> Iterator[_Row]:
    """Yield the rows that are not blank."""
    # Spaces after a bar are common, and quotes behind them belong to the text.
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter != "|", strict=True)
    start = 0
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield _Row(first_line + start, cells, lines[start : reader.line_num])
            start = reader.line_num
    except csv.Error as error:
        raise AnnotationError(
            f"{path}: line {first_line + start}: a quote is out of place or not closed ({error}). {_QUOTING}"
        ) from error


def _with_header(rows: Iterable[_Row], names: Sequence[str], delimiter: str, path: Path) -> Records:
    errors = ErrorList(path, "line")
    records, line_numbers, joined, multiline = [], [], [], []
    for row in rows:
        cells = row.cells
        if len(cells) > len(names):
            cells = _joined(row, names, delimiter)
            joined.append(row.line)
        if error := _row_error(cells, names, delimiter):
            errors.add(row.line, error)
            continue
        if len(row.lines) > 1:
            multiline.append(row)
        records.append({name: cell for name, cell in zip(names, cells, strict=True) if name})
        line_numbers.append(row.line)
    for row in _swallowing(multiline, records, names, delimiter):
        errors.add(
            row.line,
            ": has a quoted text of several lines with what seem to be further rows in it; a quote is "
            f"probably not closed. {_QUOTING}",
        )
    errors.raise_if_any()
    if joined:
        logger.warning(
            "%s: %d rows have a %s in the text without quotes around it (the first is line %d); each was "
            "read as one text.", path, len(joined), DELIMITERS[delimiter], joined[0],
        )  # fmt: skip
    return Records(path, records, "line", line_numbers)


def _row_error(cells: Sequence[str], names: Sequence[str], delimiter: str) -> str:
    """Return what is wrong with a row, or ""."""
    if len(cells) > len(names):
        return (
            f": has {len(cells)} cells where the header has {len(names)}: probably a text with a "
            f"{DELIMITERS[delimiter]} in it that is not quoted. {_QUOTING}"
        )
    if len(cells) < len(names):
        return (
            f": has {len(cells)} cell{'s' * (len(cells) > 1)} where the header has {len(names)}; is a "
            f"{DELIMITERS[delimiter]} missing?"
        )
    if normalized(cells[0]) == names[0] and [normalized(cell) for cell in cells] == list(names):
        return ": repeats the header; remove it."
    if delimiter == "|" and any(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells):
        return ": has a space before a quoted text; remove the space, or the quotes."
    return ""


def _swallowing(
    rows: Sequence[_Row], records: Sequence[Mapping[str, str]], names: Sequence[str], delimiter: str
) -> list[_Row]:
    """Return the rows of several lines in which more than one line looks like a row by itself."""
    key = next((key for key in IMAGE_KEYS if key in names), None)
    if not rows or key is None:
        return []
    column = names.index(key)
    # Names without a suffix are recognized if they differ from others only in their digits.
    patterns = {_without_digits(record[key]) for record in records}

    def looks_like_row(line: str) -> bool:
        cells = [cell.strip().strip('"') for cell in line.split(delimiter)]
        name = cells[column] if len(cells) > column else ""
        return any(map(_is_image_name, cells)) or (
            any(map(str.isdigit, name)) and _without_digits(name) in patterns
        )

    return [row for row in rows if sum(map(looks_like_row, row.lines)) > 1]


def _without_digits(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def _joined(row: _Row, names: Sequence[str], delimiter: str) -> list[str]:
    """Return the cells of a row, an unquoted text with separators joined again where that is certain."""
    line = row.lines[0].rstrip("\r\n")
    if (
        len(row.lines) == 1
        and len(names) == 2
        and names[0] in IMAGE_KEYS
        and names[1] in CAPTION_KEYS
        and delimiter in ",;"
        and '"' not in line
        and not any(map(_is_image_name, row.cells[1:]))
    ):
        image, _, text = line.partition(delimiter)
        # A separator at the end could as well be an empty cell.
        if not text.rstrip().endswith(delimiter) and all(
            after.isspace() or (before.isdigit() and after.isdigit())
            for before, after in re.findall(rf"(.?){re.escape(delimiter)}(.?)", text)
        ):
            return [image.strip(), text.strip()]
    return row.cells


def _without_header(rows: Sequence[_Row], path: Path) -> Records:
    first = rows[0]
    columns = [number for number, cell in enumerate(first.cells) if _is_image_name(cell)]
    if len(first.cells) != 2 or len(columns) != 1:
        raise AnnotationError(
            f"{path}: line {first.line}: expected a header that names a column of images "
            f"({', '.join(IMAGE_KEYS[:4])}, ...) and one of captions ({', '.join(CAPTION_KEYS[:3])}, ...), "
            f"found {', '.join(repr(cell) for cell in first.cells[:6])!s:.200}."
        )
    (column,) = columns
    errors = ErrorList(path, "line")
    for row in rows:
        if len(row.cells) != 2 or not _is_image_name(row.cells[column]):
            errors.add(
                row.line,
                ": is not a file name and a caption, as the first line is. Write a header (image, caption) "
                f"as the first line. {_QUOTING}",
            )
        elif len(row.lines) > 1:
            errors.add(row.line, f": a quoted text takes several lines; close the quote. {_QUOTING}")
    errors.raise_if_any()
    logger.warning(
        "%s: has no header; column %d is read as the images and the other as the captions.", path, column + 1
    )
    records = [
        {"image": _without_number(row.cells[column]), "caption": row.cells[1 - column]} for row in rows
    ]
    return Records(path, records, "line", [row.line for row in rows])


def _is_image_name(cell: str) -> bool:
    return _without_number(cell).lower().endswith(IMAGE_SUFFIXES) and "\n" not in cell


def _without_number(cell: str) -> str:
    numbered = _NUMBERED.fullmatch(cell)
    return numbered[1] if numbered and numbered[1].lower().endswith(IMAGE_SUFFIXES) else cell
