"""Parquet files, with the names of the images or with the images themselves."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from lavis_lite.common.files import FileError, first_line, open_regular
from lavis_lite.common.media.images import ImageError, open_image
from lavis_lite.datasets.annotations.errors import AnnotationError, ErrorList, Records
from lavis_lite.datasets.annotations.keys import IMAGE_KEYS, normalized

MAGIC = b"PAR1"
# Key of a record whose image is in the annotation file: a `StoredImage`.
STORED_KEY = "stored_image"
# A row group is read as a whole to get at one of its images, and two of them stay in memory.
MAX_ROW_GROUP_BYTES = 1 << 30
# A small file can claim any number of rows.
MAX_ROWS = 50_000_000


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in a row of a parquet file, read when it is needed.

    Attributes:
        path: the parquet file.
        column: holds {bytes, path}, or bytes.
        group: index of the row group.
        row: index of the row within its group.
    """

    path: Path
    column: str
    group: int
    row: int

    def open(self) -> Image.Image:
        """Return the image, upright RGB.

        Raises:
            ImageError: damaged, or not an image.
        """
        name = f"{self.path}, row {self.row} of row group {self.group}"
        try:
            value = _row_group(str(self.path), self.column, self.group)[self.row].as_py()
        except Exception as error:  # pyarrow raises nearly anything on damaged bytes
            raise ImageError(f"{name}: {first_line(error)}") from error
        content = _bytes_of(value)
        if not content:
            raise ImageError(f"{name}: holds no image")
        return open_image(io.BytesIO(content), name)


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    from pyarrow import parquet

    with open_regular(path) as source, parquet.ParquetFile(source, page_checksum_verification=True) as file:
        yield file


@lru_cache(maxsize=2)
def _row_group(path: str, column: str, group: int) -> Any:
    """Return a column of a row group. The file is opened each time: processes must not share it."""
    with _opened(path) as file:
        return file.read_row_group(group, columns=[column]).column(column).combine_chunks()


def read_parquet(path: Path) -> Records:
    """Return the rows of a parquet file.

    If the file holds the images, each record has a name for its image under "image", and a `StoredImage`.

    Raises:
        AnnotationError: not parquet, damaged, a row without its image, or pyarrow is not installed.
    """
    try:
        with _opened(path) as file:
            metadata = file.metadata
            if metadata.num_rows > MAX_ROWS:
                raise AnnotationError(f"{path}: has {metadata.num_rows} rows, more than {MAX_ROWS}.")
            column, has_paths = _image_column(file.schema_arrow)
            if column is None:
                return Records(path, file.read().to_pylist())
            positions = []
            for group in range(metadata.num_row_groups):
                if metadata.row_group(group).total_byte_size > MAX_ROW_GROUP_BYTES:
                    raise AnnotationError(
                        f"{path}: row group {group} is larger than {MAX_ROW_GROUP_BYTES >> 20} MiB, which is "
                        "too much to read for one image. Write the file with row_group_size=100, or use "
                        "hf_dataset."
                    )
                positions += [(group, row) for row in range(metadata.row_group(group).num_rows)]
            columns = [name for name in file.schema_arrow.names if name != column]
            rows = file.read(columns=[*columns, *([f"{column}.path"] if has_paths else [])]).to_pylist()
            empty = _rows_without_image(file, column)
    except AnnotationError:
        raise
    except ImportError as error:
        raise AnnotationError(f"{path}: reading parquet needs pyarrow: pip install pyarrow.") from error
    except FileError as error:
        raise AnnotationError(str(error)) from error
    except Exception as error:  # pyarrow raises nearly anything on damaged bytes
        raise AnnotationError(f"{path}: is not valid parquet: {first_line(error)}") from error
    if len(positions) != len(rows):
        raise AnnotationError(f"{path}: is not valid parquet: its row groups do not add up.")
    return Records(path, _with_stored_images(rows, column, positions, empty, path))


def _image_column(schema: Any) -> tuple[str | None, bool]:
    """Return the column that holds images, and whether it holds their paths, too."""
    from pyarrow import types

    for name in schema.names:
        kind = schema.field(name).type
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return name, kind.get_field_index("path") >= 0
        if (types.is_binary(kind) or types.is_large_binary(kind)) and normalized(name) in IMAGE_KEYS:
            return name, False
    return None, False


def _rows_without_image(file: Any, column: str) -> set[int]:
    """Return the indices of rows without bytes; only row groups that may have some are read."""
    empty: set[int] = set()
    start = 0
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        chunks = [group.column(index) for index in range(group.num_columns)]
        null_counts = [
            chunk.statistics.null_count if chunk.statistics and chunk.statistics.has_null_count else None
            for chunk in chunks
            if chunk.path_in_schema in (column, f"{column}.bytes")
        ]
        if null_counts != [0]:
            values = file.read_row_group(number, columns=[column]).column(column)
            empty |= {start + row for row, value in enumerate(values) if not _bytes_of(value.as_py())}
        start += group.num_rows
    return empty


def _bytes_of(value: Any) -> bytes | None:
    return value.get("bytes") if isinstance(value, Mapping) else value


def _with_stored_images(
    rows: Sequence[dict[str, Any]],
    column: str,
    positions: Sequence[tuple[int, int]],
    empty: Collection[int],
    path: Path,
) -> list[dict[str, Any]]:
    """Return `rows` with "image" as a name; a row without bytes names a file."""
    paths = [row[column].get("path") if isinstance(row.get(column), Mapping) else None for row in rows]
    errors = ErrorList(path, "annotation")
    for number in sorted(empty):
        if not paths[number]:
            errors.add(number, f", key {column!r}: has no image.")
    errors.raise_if_any()
    names = [PurePosixPath(str(name).replace("\\", "/")).name for name in paths]
    usable = all(paths) and len(set(names)) == len(names)  # some writers leave them out
    records = []
    for number, row in enumerate(rows):
        record = {key: value for key, value in row.items() if key != column}
        if number in empty:
            record["image"] = paths[number]
        else:
            record["image"] = names[number] if usable else f"{path.stem}/{number:06d}"
            record[STORED_KEY] = StoredImage(path, column, *positions[number])
        records.append(record)
    return records
