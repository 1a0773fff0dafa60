"""What is made of the scores of all shards, a shard at a time: one table, one list of pairs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lavis_lite.capfilt.select import Candidate

Row = dict[str, Any]
NO_SCORES = ("shard", "key", "url", "source", "text", "kept", "reason")


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a shard's table."""
    from pyarrow import parquet

    return parquet.read_table(path).to_pylist()


def write_whole(
    tables: Iterable[Path],
    table: Path,
    pairs: Path,
    change: Callable[[list[Row]], list[Row]] = lambda rows: rows,
) -> Iterator[list[Row]]:
    """Write one table of all shards, and the list of the pairs that are kept; yield each shard's rows.

    Memory holds one shard at a time. Readers never see half a file.

    Args:
        tables: of the shards.
        table: where the whole table goes.
        pairs: where the list ``[{"url" or "image", "caption"}]`` goes, as BLIP's own was published.
        change: what becomes of a shard's rows.
    """
    from pyarrow import Table, parquet

    table_aside, pairs_aside = (path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in (table, pairs))
    pairs.parent.mkdir(parents=True, exist_ok=True)
    writer, separator = None, ""
    with pairs_aside.open("w", encoding="utf-8") as file:
        file.write("[")
        for path in tables:
            rows = change(read_rows(path))
            schema = parquet.read_schema(path)
            writer = writer or parquet.ParquetWriter(table_aside, schema)
            writer.write_table(Table.from_pylist(rows, schema=schema))
            for row in rows:
                if row["kept"]:
                    file.write(f"{separator}\n {json.dumps(_pair(row), ensure_ascii=False)}")
                    separator = ","
            yield rows
        file.write("\n]\n")
    if writer is not None:
        writer.close()
        table_aside.replace(table)
    pairs_aside.replace(pairs)


def _pair(row: Row) -> dict[str, str]:
    """Return a kept text with the address of its image, or, where none is known, its shard and key."""
    place = {"url": row["url"]} if row.get("url") else {"image": f"{row['shard']}/{row['key']}"}
    return {**place, "caption": row["text"]}


def candidate_of(row: Row) -> Candidate:
    """Return what a row says of a text, undecided."""
    scores = {name: value for name, value in row.items() if name not in NO_SCORES}
    return Candidate(row["text"], row["source"], scores)
