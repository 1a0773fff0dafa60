"""CSV and its relatives: rows of cells below a header, separated by commas, semicolons, tabs or bars."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lavis_lite.common.media.images import IMAGE_SUFFIXES
from lavis_lite.datasets.annotations.errors import AnnotationError, ErrorList, Records
from lavis_lite.datasets.annotations.names import CAPTION_KEYS, IMAGE_KEYS, KNOWN_KEYS, normalized

logger = logging.getLogger(__name__)

DELIMITERS = (",", ";", "\t", "|")
_EXCEL_HINT = re.compile(r"sep=([,;\t|])(\r\n|\r|\n)", re.IGNORECASE)
# Flickr's token files number the captions of an image: "12345.jpg#0".
_NUMBERED = re.compile(r"(.+)#\d+")
_QUOTING = (
    "A text that begins with a quote, or has the separator in it, must stand in quotes as a whole, with the "
    'quotes within it doubled: "a ""red"" circle, on grass".'
)


@dataclass(frozen=True)
class _Row:
    """A row and the lines of the file that it takes.

    Attributes:
        line: number of its first line, from 1.
        cells: without white space around them.
        lines: the row as it stands in the file.
    """

    line: int
    cells: list[str]
    lines: list[str]


def parse_table(text: str, path: Path) -> Records:
    """Return the rows of a table as records, with their line numbers.

    The separator is the one by which the header holds known names. Without a header, two columns of which
    one holds image file names are read. A row of two columns ends in an unquoted text with commas: the text
    is joined again where every comma is followed by a space or stands between digits.

    Raises:
        AnnotationError: no header, a column twice, or rows that do not fit it; names the lines.
    """
    skipped = 0
    hint = _EXCEL_HINT.match(text)
    if hint:
        text, skipped = text[hint.end() :], 1
    lines = list(io.StringIO(text, newline=""))
    delimiter = hint[1] if hint else _delimiter(lines)
    rows = _rows(lines, delimiter, skipped, path)
    first = next(rows, None)
    if first is None:
        return Records(path, [])
    names = [normalized(cell) for cell in first.cells]
    if not KNOWN_KEYS.intersection(names):
        return _without_header([first, *rows], path)
    _check_header(first, names, path)
    return _with_header(rows, names, delimiter, path)


def _delimiter(lines: Sequence[str]) -> str:
    """Return the delimiter by which the first line has most known names, or else an image's name."""
    first = next((line for line in lines if line.strip()), "")

    def rank(delimiter: str) -> tuple[int, int, bool]:
        cells = [cell.strip().strip('"') for cell in first.split(delimiter)]
        known = len(KNOWN_KEYS.intersection(map(normalized, cells)))
        return known, sum(map(_is_image_name, cells)), delimiter in first

    return max(DELIMITERS, key=rank)  # the first of equals


def _rows(lines: Sequence[str], delimiter: str, skipped: int, path: Path) -> Iterator[_Row]:
    """Yield the rows that are not blank."""
    # After a bar, spaces are habit, and quotes behind them belong to the text.
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter != "|", strict=True)
    start = 0
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield _Row(start + skipped + 1, stripped, list(lines[start : reader.line_num]))
            start = reader.line_num
    except csv.Error as error:
        raise AnnotationError(
            f"{path}: line {start + skipped + 1}: a quote is out of place or not closed ({error}). {_QUOTING}"
        ) from error


def _check_header(row: _Row, names: Sequence[str], path: Path) -> None:
    for name in filter(None, names):
        if names.count(name) > 1:
            columns = ", ".join(str(number) for number, other in enumerate(names, 1) if other == name)
            raise AnnotationError(
                f"{path}: line {row.line}: the columns {columns} are all called {name!r}; rename all but one."
            )


def _with_header(rows: Iterable[_Row], names: Sequence[str], delimiter: str, path: Path) -> Records:
    errors = ErrorList(path, "line")
    records, line_numbers, joined, long_rows = [], [], [], []
    for row in rows:
        cells = row.cells
        if len(cells) > len(names):
            cells = _joined(row, names, delimiter)
            joined.append(row.line)
        fault = _fault(cells, names, delimiter)
        if fault:
            errors.add(str(row.line), fault)
            continue
        if len(row.lines) > 1:
            long_rows.append(row)
        records.append({name: cell for name, cell in zip(names, cells, strict=True) if name})
        line_numbers.append(row.line)
    for row in _swallowing(long_rows, records, names, delimiter):
        errors.add(
            str(row.line),
            ": has a quoted text of several lines with what seem to be further rows in it; a quote is "
            f"probably not closed. {_QUOTING}",
        )
    errors.raise_if_any()
    if joined:
        logger.warning(
            "%s: %d rows have a %s in the text without quotes around it (the first is line %d); each was "
            "read as one text.", path, len(joined), _name(delimiter), joined[0],
        )  # fmt: skip
    return Records(path, records, "line", line_numbers)


def _fault(cells: Sequence[str], names: Sequence[str], delimiter: str) -> str:
    """Return what is wrong with a row, or ""."""
    if len(cells) > len(names):
        return (
            f": has {len(cells)} cells where the header has {len(names)}: probably a text with a "
            f"{_name(delimiter)} in it that is not quoted. {_QUOTING}"
        )
    if len(cells) < len(names):
        return (
            f": has {len(cells)} cell{'s' * (len(cells) > 1)} where the header has {len(names)}; is a "
            f"{_name(delimiter)} missing?"
        )
    if normalized(cells[0]) == names[0] and [normalized(cell) for cell in cells] == list(names):
        return ": repeats the header; remove it."
    if delimiter == "|" and any(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells):
        return ": has a space before a quoted text; remove the space, or the quotes."
    return ""


def _swallowing(
    rows: Sequence[_Row], records: Sequence[Mapping[str, str]], names: Sequence[str], delimiter: str
) -> list[_Row]:
    """Return the rows of several lines of which more than one looks like a row of its own."""
    image = next((key for key in IMAGE_KEYS if key in names), None)
    if not rows or image is None:
        return []
    shapes = {_shape(record[image]) for record in records}
    column = names.index(image)
    return [
        row for row in rows if sum(_holds_image(line, delimiter, column, shapes) for line in row.lines) > 1
    ]


def _holds_image(line: str, delimiter: str, image_column: int, shapes: set[str]) -> bool:
    """Tell whether one line of a longer row looks like a row of its own."""
    cells = [cell.strip().strip('"') for cell in line.split(delimiter)]
    if any(_is_image_name(cell) for cell in cells):
        return True
    # names without a suffix: those that differ from others only in their digits
    name = cells[image_column] if len(cells) > image_column else ""
    return any(map(str.isdigit, name)) and _shape(name) in shapes


def _joined(row: _Row, names: Sequence[str], delimiter: str) -> list[str]:
    """Return the row with an unquoted text joined again, or as it is where that is not certain."""
    line = row.lines[0].rstrip("\r\n")
    certain = (
        len(row.lines) == 1
        and len(names) == 2
        and names[0] in IMAGE_KEYS
        and names[1] in CAPTION_KEYS
        and delimiter in ",;"
        and '"' not in line
        and not any(_is_image_name(cell) for cell in row.cells[1:])
    )
    if certain:
        image, _, rest = line.partition(delimiter)
        as_written = all(
            after.isspace() or (before.isdigit() and after.isdigit())
            for before, after in re.findall(rf"(.?){re.escape(delimiter)}(.?)", rest)
        )
        # A comma at the end could as well be an empty cell.
        if as_written and not rest.rstrip().endswith(delimiter):
            return [image.strip(), rest.strip()]
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
    (image_column,) = columns
    errors = ErrorList(path, "line")
    for row in rows:
        if len(row.cells) != 2 or not _is_image_name(row.cells[image_column]):
            errors.add(
                str(row.line),
                ": is not a file name and a caption, as the first line is. Write a header (image, caption) "
                f"as the first line. {_QUOTING}",
            )
        elif len(row.lines) > 1:
            errors.add(str(row.line), f": a quoted text takes several lines; close the quote. {_QUOTING}")
    errors.raise_if_any()
    logger.warning(
        "%s: has no header; column %d is read as the images and the other as the captions.",
        path,
        image_column + 1,
    )
    records = [
        {"image": _without_number(row.cells[image_column]), "caption": row.cells[1 - image_column]}
        for row in rows
    ]
    return Records(path, records, "line", [row.line for row in rows])


def _name(delimiter: str) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}[delimiter]


def _is_image_name(cell: str) -> bool:
    return _without_number(cell).lower().endswith(IMAGE_SUFFIXES) and "\n" not in cell


def _without_number(cell: str) -> str:
    numbered = _NUMBERED.fullmatch(cell)
    return numbered[1] if numbered and numbered[1].lower().endswith(IMAGE_SUFFIXES) else cell


def _shape(name: str) -> str:
    return re.sub(r"\d+", "0", name)
