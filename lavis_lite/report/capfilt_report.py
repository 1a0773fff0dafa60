"""What CapFilt did, on one page: examples, scores, how rich the texts are."""

from __future__ import annotations

import io
import math
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lavis_lite.common.files import FileError, read_json
from lavis_lite.common.media.images import IMAGE_SUFFIXES, ImageError, open_image
from lavis_lite.metrics.diversity import diversity
from lavis_lite.metrics.selection import main_metric, metric_names_in
from lavis_lite.report.charts import line_chart
from lavis_lite.report.gallery import Thumbnail, shrink
from lavis_lite.report.page import write_page

PAGE_FILE = "report.html"
EXAMPLES = 12
SHARDS_SHOWN = 100  # of more shards, so many stand for all
BINS = 40
UNITS_NAMED = 100
PICTURE_BYTES = 64 << 20
Row = dict[str, Any]
_MARKER_KEYS = {"samples", "kept", "filtered", "failed", "reasons", "damage"}


@dataclass
class Example:
    """A sample to look at: its picture, where it could be read, and its texts."""

    key: str
    picture: Thumbnail | None
    texts: list[Row]


def write_capfilt_report(
    folder: Path,
    figures: Mapping[str, Mapping[str, float]] | None = None,
    warnings: Sequence[str] = (),
) -> Path:
    """Write the page of an output folder of CapFilt into it, and return its path.

    Args:
        figures: how the filter did, source -> name -> value, where the truth is known.
        warnings: what a person should look at first.

    Raises:
        FileError: settings.json or a table is damaged.
    """
    settings = read_json(folder / "settings.json")
    markers = _read_markers(folder)
    every = [folder / "scores" / f"{name}.parquet" for name in markers]
    count = min(SHARDS_SHOWN, len(every))
    tables = [every[place * len(every) // count] for place in range(count)]
    rows: list[Row] = [row for table in tables for row in _read_rows(table)]
    scores = _score_names(tables)
    groups = _examples(rows, settings["settings"])
    wanted = {(own[0]["shard"], own[0]["key"]) for _, samples in groups for own in samples}
    pictures = _pictures(folder, settings["shards"], wanted)
    return write_page(
        "capfilt_report.html",
        folder / PAGE_FILE,
        title=f"CapFilt: {folder.name}",
        settings=settings["settings"],
        counts=_counts(markers.values()),
        reasons=_reasons(markers.values()),
        warnings=warnings,
        remarks=_remarks(folder, markers),
        shown=len(tables) if len(tables) < len(every) else None,
        scores=scores,
        figures=figures or {},
        histograms=[_histogram(rows, name) for name in scores],
        sources=_sources(rows),
        groups=[(title, [_example(own, pictures) for own in samples]) for title, samples in groups],
    )


def _example(rows: list[Row], pictures: Mapping[tuple[str, str], Thumbnail]) -> Example:
    return Example(rows[0]["key"], pictures.get((rows[0]["shard"], rows[0]["key"])), rows)


def _score_names(tables: Sequence[Path]) -> list[str]:
    """Return the columns that hold scores, the only ones of numbers; none before the first shard is done."""
    from pyarrow import parquet, types

    columns = [column for table in tables[:1] for column in parquet.read_schema(table)]
    return [column.name for column in columns if types.is_floating(column.type)]


def _read_markers(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the markers of finished units say, without unreadable ones."""
    markers = {}
    for file in sorted((folder / "done").glob("*.json")):
        try:
            marker = read_json(file)
        except FileError:
            continue  # the next run repairs it
        if isinstance(marker, dict) and marker.keys() >= _MARKER_KEYS:
            markers[file.stem] = marker
    return markers


def _read_rows(table: Path) -> list[Row]:
    from pyarrow import ArrowException, parquet

    try:
        return parquet.read_table(table).to_pylist()
    except (ArrowException, OSError) as error:
        raise FileError(f"{table}: cannot be read; the same run repairs it ({error}).") from error


def _counts(markers: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    sums = Counter[str]()
    for marker in markers:
        sums.update({key: marker[key] for key in ("samples", "kept", "filtered", "failed")})
    names = ("samples", "kept", "filtered", "failed")
    return [(f"samples {key}" if key != "samples" else key, f"{sums[key]:,}") for key in names]


def _reasons(markers: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return how many samples failed for which kind of reason, the most frequent first."""
    counts = Counter[str]()
    for marker in markers:
        counts.update(marker["reasons"])
    return [(reason, f"{count:,}") for reason, count in counts.most_common()]


def _remarks(folder: Path, markers: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return what is said about units that were set aside, or whose input is damaged or partly unused."""
    remarks = [
        (file.stem, f"set aside: {file.read_text(encoding='utf-8', errors='replace').strip()}")
        for file in sorted((folder / "failed").glob("*.txt"))
    ]
    for name, marker in markers.items():
        damage = marker["damage"]
        if damage:
            more = f" (and {len(damage) - 1} more in done/{name}.json)" if len(damage) > 1 else ""
            remarks.append((name, f"{damage[0]}{more}"))
    if len(remarks) > UNITS_NAMED:
        remarks[UNITS_NAMED:] = [("...", f"and {len(remarks) - UNITS_NAMED} more")]
    return remarks


def _sources(rows: Sequence[Row]) -> list[tuple[str, dict[str, str]]]:
    """Return of web and synthetic texts, before and after: how many, what share was dropped, how rich."""
    found = []
    for source in ("web", "synthetic"):
        own = [row for row in rows if row["source"] == source]
        kept = [row["text"] for row in own if row["kept"]]
        if not own:
            continue
        figures = {"texts": f"{len(own):,}", "kept": f"{len(kept):,}"}
        figures["noise ratio (dropped)"] = f"{1 - len(kept) / len(own):.1%}"
        for when, texts in (("before", [row["text"] for row in own]), ("after", kept)):
            figures |= {f"{name}, {when}": f"{value:.3g}" for name, value in diversity(texts).items()}
        found.append((source, figures))
    return found


def _histogram(rows: Sequence[Row], score: str) -> Markup:
    """Draw what share of the web's and of the synthetic texts have which score."""
    by_source = {
        source: [row[score] for row in rows if row["source"] == source and _is_number(row[score])]
        for source in ("web", "synthetic")
    }
    everything = [value for values in by_source.values() for value in values]
    low, high = min(everything, default=0.0), max(everything, default=1.0)
    width = (high - low) / BINS or 1.0
    series = {}
    for source, values in by_source.items():
        counts = [0] * BINS
        for value in values:
            counts[min(BINS - 1, int((value - low) / width))] += 1
        if values:
            series[source] = [
                (low + (place + 0.5) * width, count / len(values)) for place, count in enumerate(counts)
            ]
    return Markup(line_chart(series, f"{score}: share of the texts", x_label=score))


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _examples(rows: Iterable[Row], settings: Mapping[str, Any]) -> list[tuple[str, list[list[Row]]]]:
    """Return samples to look at, each as its rows: kept, dropped, and nearest to the threshold."""
    samples: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["source"]:
            samples.setdefault((row["shard"], row["key"]), []).append(row)
    everyone = list(samples.values())
    mixed = [own for own in everyone if len({row["kept"] for row in own}) == 2]
    dropped = [own for own in everyone if not any(row["kept"] for row in own)]
    groups = [
        ("One text kept, another dropped", _spread(mixed)),
        ("Nothing kept", _spread(dropped)),
        ("Everything kept", _spread([own for own in everyone if all(row["kept"] for row in own)])),
    ]
    rule = settings["rule"]
    if rule not in ("best", "fraction"):
        least = settings["threshold"]
        nearest = sorted(everyone, key=lambda own: min(abs(_value(row, rule) - least) for row in own))
        groups.append((f"Nearest to the threshold ({rule} {least})", nearest[:EXAMPLES]))
    return groups


def _value(row: Row, expression: str) -> float:
    names = metric_names_in(expression)
    if not all(_is_number(row.get(name)) for name in names):
        return float("inf")
    return main_metric({name: row[name] for name in names}, expression)


def _spread(samples: Sequence[list[Row]]) -> list[list[Row]]:
    count = min(EXAMPLES, len(samples))
    return [samples[place * len(samples) // count] for place in range(count)]


def _pictures(
    folder: Path, sources: Mapping[str, str], wanted: set[tuple[str, str]]
) -> dict[tuple[str, str], Thumbnail]:
    """Return pictures from the cleaned shards, or, of samples that keep nothing, from where they came."""
    found: dict[tuple[str, str], Thumbnail] = {}
    for name in sorted({shard for shard, _ in wanted}):
        for path in (folder / "shards" / f"{name}.tar", Path(sources.get(name, ""))):
            missing = {key for shard, key in wanted if shard == name and (name, key) not in found}
            if missing and path.is_file():
                found |= {(name, key): picture for key, picture in _pictures_of(path, missing)}
    return found


def _pictures_of(path: Path, keys: set[str]) -> Iterator[tuple[str, Thumbnail]]:
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                key, dot, suffix = member.name.partition(".")
                if key not in keys or f"{dot}{suffix.lower()}" not in IMAGE_SUFFIXES:
                    continue
                file = tar.extractfile(member) if member.size <= PICTURE_BYTES else None
                if file is not None:
                    with suppress(ImageError):  # the row beside it says why
                        yield key, shrink(open_image(io.BytesIO(file.read()), name=member.name))
    except (tarfile.TarError, EOFError, OSError, ValueError):
        return  # a damaged shard has been named where it was read
