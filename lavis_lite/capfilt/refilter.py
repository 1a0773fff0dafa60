"""Applying other settings to the scores that are there, without any model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_lite.capfilt.begin import CapFiltError
from lavis_lite.capfilt.markers import read_markers
from lavis_lite.capfilt.reference import with_threshold
from lavis_lite.capfilt.selection import select
from lavis_lite.capfilt.settings import SelectionSettings
from lavis_lite.capfilt.tables import NO_SCORES, candidate_of, read_table, write_whole


def refilter(folder: str | Path, settings: SelectionSettings, output: str | Path) -> dict[str, int]:
    """Write the list of pairs, and the table, that other settings would keep; return the counts.

    Args:
        folder: output of CapFilt.
        output: a ``.json`` file for the list; the table goes beside it as ``.parquet``.

    Raises:
        CapFiltError: no shard there is done, or `output` would overwrite files of the folder.
        ConfigError: a rule that asks for scores which are not there.
        FileError: a table is damaged.
    """
    folder, output = Path(folder).expanduser(), Path(output).expanduser()
    tables = [folder / "scores" / f"{name}.parquet" for name in read_markers(folder, any_version=True)]
    if not tables:
        raise CapFiltError(f"{folder}: holds no scores; it is no output folder of capfilt.")
    table = output.with_suffix(".parquet")
    if output.suffix != ".json":
        raise CapFiltError(
            f"--output {output}: name a .json file; the table is written beside it as .parquet."
        )
    own = {folder.resolve() / name for name in ("kept.json", "scores.parquet", "settings.json")}
    if own & {output.resolve(), table.resolve()}:
        raise CapFiltError(f"--output {output}: would overwrite the result of {folder}. Choose another name.")
    names = [name for name in read_table(tables[0]).schema.names if name not in NO_SCORES]
    settings.check_scores(names)
    settings = with_threshold(settings)
    counts = {"texts": 0, "kept": 0}
    for rows in write_whole(tables, table, output, lambda own: list(_decided(own, settings))):
        counts["texts"] += sum(bool(row["source"]) for row in rows)
        counts["kept"] += sum(row["kept"] for row in rows)
    return counts


def _decided(rows: list[dict[str, Any]], settings: SelectionSettings) -> Iterator[dict[str, Any]]:
    """Yield a shard's rows with the decision of `settings`; failed samples stay as they are."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["key"], []).append(row)
    texts = {key: own for key, own in groups.items() if own[0]["source"]}
    candidates = [[candidate_of(row) for row in own] for own in texts.values()]
    judged = dict(zip(texts, select(candidates, settings), strict=True))
    for key, own in groups.items():
        if key not in judged:
            yield from own
            continue
        for row, candidate in zip(own, judged[key], strict=True):
            yield {**{name: row[name] for name in ("shard", "key", "url")}, **candidate.flat()}
