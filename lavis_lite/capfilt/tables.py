"""What is made of the scores of all units, a unit at a time: one table, one list of pairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lavis_lite.capfilt.selection import Candidate
from lavis_lite.common.files import FileError, atomic_writer, first_line

Row = dict[str, Any]
NO_SCORES = ("shard", "key", "url", "source", "text", "kept", "reason")


def read_table(path: Path) -> Any:
    """Return a Parquet file as a table of pyarrow.

    Raises:
        FileError: it is missing or damaged.
    """
    from pyarrow import ArrowException, parquet

    try:
        return parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise FileError(f"{path}: cannot be read as Parquet ({first_line(error)}).") from error


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a unit's table.

    Raises:
        FileError: it is missing or damaged.
    """
    return read_table(path).to_pylist()


def write_whole(
    tables: Iterable[Path],
    table: Path,
    pairs: Path,
    change: Callable[[list[Row]], list[Row]] = lambda rows: rows,
) -> Iterator[list[Row]]:
    """Write one table of all units, and the list of the pairs that are kept; yield each unit's rows.

    Memory holds one unit at a time. Readers never see half a file.

    Args:
        tables: of the units.
        table: where the whole table goes; nothing is written there if there is no unit.
        pairs: where the list ``[{"url" or "image", "caption"}]`` goes, as BLIP's own was published.
        change: what becomes of a unit's rows.

    Raises:
        FileError: a table is missing or damaged; `table` and `pairs` are as before.
    """
    from pyarrow import Table, parquet

    writer, separator = None, ""
    with ExitStack() as files:
        file = files.enter_context(atomic_writer(pairs, "w"))
        file.write("[")
        for path in tables:
            content = read_table(path)
            rows = change(content.to_pylist())
            if writer is None:
                sink = files.enter_context(atomic_writer(table))
                writer = files.enter_context(parquet.ParquetWriter(sink, content.schema))
            writer.write_table(Table.from_pylist(rows, schema=content.schema))
            for row in rows:
                if row["kept"]:
                    file.write(f"{separator}\n {json.dumps(_pair(row), ensure_ascii=False)}")
                    separator = ","
            yield rows
        file.write("\n]\n")


def _pair(row: Row) -> dict[str, str]:
    """Return a kept text with the address of its image, or, where none is known, its shard and key."""
    place = {"url": row["url"]} if row.get("url") else {"image": f"{row['shard']}/{row['key']}"}
    return {**place, "caption": row["text"]}


def candidate_of(row: Row) -> Candidate:
    """Return what a row says of a text, undecided."""
    scores = {name: value for name, value in row.items() if name not in NO_SCORES}
    return Candidate(row["text"], row["source"], scores)
