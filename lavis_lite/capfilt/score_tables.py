"""Tables of scores: written, merged, decided again by other settings, and as reference of a threshold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from lavis_lite.capfilt.output_reader import TEXT_COLUMNS, CapFiltError, OutputReader, Row, read_table
from lavis_lite.capfilt.selection import Candidate, select
from lavis_lite.capfilt.settings import SelectionSettings
from lavis_lite.capfilt.sources import Sample
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import atomic_writer, printable

Settings = TypeVar("Settings", bound=SelectionSettings)


def write_table(samples: Sequence[Sample], score_names: Sequence[str], path: Path) -> None:
    """Write every text of every sample of a unit, with its scores and the decision, as Parquet."""
    import pyarrow
    from pyarrow import parquet

    text = pyarrow.string()
    columns = [(name, text) for name in ("shard", "key", "url", "source", "text")]
    columns += [(name, pyarrow.float64()) for name in score_names]
    columns += [("kept", pyarrow.bool_()), ("reason", text)]
    table = pyarrow.Table.from_pylist(list(_rows(samples)), schema=pyarrow.schema(columns))
    with atomic_writer(path) as file:
        parquet.write_table(table, file)


def _rows(samples: Sequence[Sample]) -> Iterator[Row]:
    for sample in samples:
        url = sample.about.get("url")
        if isinstance(url, str) and sample.failure:
            url = printable(url)  # it may be what the sample failed for
        shard = str(sample.about.get("capfilt_shard", ""))
        row = {"shard": shard, "key": sample.key, "url": url if isinstance(url, str) else None}
        if sample.failure:
            yield {**row, "source": "", "kept": False, "reason": printable(sample.failure)}
        for candidate in sample.candidates:
            yield {**row, **candidate.as_row()}


def merge_tables(
    tables: Sequence[Path],
    table: Path,
    pairs: Path,
    decide: Callable[[list[Row]], list[Row]] = lambda rows: rows,
) -> dict[str, int]:
    """Write one table of all units, and the list of kept pairs; return the counts of texts and kept texts.

    One unit at a time is in memory. Until both files are complete, they are what they were before.

    Args:
        tables: of the units.
        table: file to write; without a unit, it is not written.
        pairs: file to write, ``[{"url" or "image", "caption"}]`` as BLIP's own list was published.
        decide: maps the rows of a unit to those to write.

    Raises:
        FileError: a table is missing or damaged.
    """
    from pyarrow import Table, parquet

    counts = {"texts": 0, "kept": 0}
    writer = None
    with ExitStack() as files:
        pairs_file = files.enter_context(atomic_writer(pairs, "w"))
        pairs_file.write("[")
        for path in tables:
            content = read_table(path)
            rows = decide(content.to_pylist())
            if writer is None:
                table_file = files.enter_context(atomic_writer(table))
                writer = files.enter_context(parquet.ParquetWriter(table_file, content.schema))
            writer.write_table(Table.from_pylist(rows, schema=content.schema))
            for row in rows:
                counts["texts"] += bool(row["source"])
                if row["kept"]:
                    separator = "," if counts["kept"] else ""
                    pairs_file.write(f"{separator}\n {json.dumps(_pair(row), ensure_ascii=False)}")
                    counts["kept"] += 1
        pairs_file.write("\n]\n")
    return counts


def _pair(row: Row) -> dict[str, str]:
    image = {"url": row["url"]} if row.get("url") else {"image": f"{row['shard']}/{row['key']}"}
    return {**image, "caption": row["text"]}


def refilter(folder: str | Path, settings: SelectionSettings, output: str | Path) -> dict[str, int]:
    """Write the pairs and the table that other settings keep, without any model; return their counts.

    Args:
        folder: output folder of CapFilt.
        output: ``.json`` file for the pairs; the table is written beside it as ``.parquet``.

    Raises:
        CapFiltError: no unit is done, or `output` would overwrite files of the folder.
        ConfigError: a rule that needs scores which the folder does not have.
        FileError: a table is damaged.
    """
    reader, output = OutputReader(folder), Path(output).expanduser()
    names = list(reader.markers())
    if not names:
        raise CapFiltError(f"{reader.folder}: not a capfilt output folder, or no shard is done yet.")
    if output.suffix != ".json":
        raise CapFiltError(
            f"--output {output}: name a .json file; the table is written beside it as .parquet."
        )
    table = output.with_suffix(".parquet")
    results = {path.resolve() for path in reader.merged_files()}
    if results & {output.resolve(), table.resolve()}:
        raise CapFiltError(
            f"--output {output}: would overwrite the result of {reader.folder}. Choose another name."
        )
    settings.check_scores(reader.score_names(names[0]))
    settings = with_threshold(settings)
    return merge_tables(
        [reader.table(name) for name in names], table, output, lambda rows: list(_decide(rows, settings))
    )


def _decide(rows: Sequence[Row], settings: SelectionSettings) -> Iterator[Row]:
    """Yield the rows of a unit, decided by `settings`; rows of failed samples stay as they are."""
    samples: dict[str, list[Row]] = {}
    for row in rows:
        samples.setdefault(row["key"], []).append(row)
    texts = [[_candidate(row) for row in group] for group in samples.values() if group[0]["source"]]
    decided = iter(select(texts, settings))
    for group in samples.values():
        if not group[0]["source"]:
            yield from group
            continue
        for row, candidate in zip(group, next(decided), strict=True):
            yield {**{name: row[name] for name in ("shard", "key", "url")}, **candidate.as_row()}


def _candidate(row: Row) -> Candidate:
    scores = {name: value for name, value in row.items() if name not in TEXT_COLUMNS}
    return Candidate(row["text"], row["source"], scores)


def with_threshold(settings: Settings) -> Settings:
    """Return `settings` with the threshold that `keep_matching` of the reference's texts reach.

    Raises:
        ConfigError: the reference cannot be read, or lacks a score that the rule needs.
    """
    if settings.reference is None:
        return settings
    path = Path(settings.reference).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"reference: {path}: no such file. Score pairs that are known to match with the same filter "
            "(captions_per_image=0 filtered=none) and name that run's scores.parquet."
        )
    candidates = [_candidate(row) for row in read_table(path).to_pylist() if row["source"]]
    values = sorted(candidate.value(settings.threshold_on) for candidate in candidates)
    if not values or values[0] == -math.inf:
        raise ConfigError(f"reference: {path} has no texts that are scored by {settings.threshold_on!r}.")
    return replace(settings, threshold=values[int(len(values) * (1 - settings.keep_matching))])
