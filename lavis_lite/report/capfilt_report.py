"""One page about a CapFilt output folder: counts, scores, how rich the texts are, and examples."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lavis_lite.capfilt.output_reader import OutputReader, Row, images_in_tar
from lavis_lite.capfilt.summary import totals_of
from lavis_lite.common.media.images import ImageError, open_image
from lavis_lite.metrics.diversity import diversity
from lavis_lite.metrics.selection import main_metric, metric_names_in
from lavis_lite.report.charts import line_chart
from lavis_lite.report.gallery import Thumbnail, shrink
from lavis_lite.report.page import write_page

PAGE_FILE = "report.html"
EXAMPLES = 12
SHARDS_SHOWN = 100  # of more shards, this many are read, evenly spaced
BINS = 40
UNITS_NAMED = 100

SampleId = tuple[str, str]  # shard, key


@dataclass
class Example:
    """A sample to show: its picture, if that can be read, and its texts."""

    key: str
    picture: Thumbnail | None
    texts: list[Row]


def write_capfilt_report(
    output: OutputReader,
    figures: Mapping[str, Mapping[str, float]] | None = None,
    warnings: Sequence[str] = (),
) -> Path:
    """Write the page of an output folder of CapFilt into it, and return its path.

    Args:
        figures: how good the filter is, source -> name -> value, where the truth is known.
        warnings: what a user should look at first.

    Raises:
        CapFiltError: not an output folder, or its settings.json is damaged.
        FileError: a table is damaged.
    """
    begun_with = output.settings()
    settings = begun_with["settings"]
    markers = output.markers()
    totals = totals_of(markers.values())
    names = _spread(list(markers), SHARDS_SHOWN)
    rows = [row for name in names for row in output.rows(name)]
    scores = output.score_names(names[0]) if names else []
    groups = _examples(rows, settings)
    pictures = _pictures(
        output, begun_with["shards"], [sample for _, samples in groups for sample in samples]
    )
    return write_page(
        "capfilt_report.html",
        output.folder / PAGE_FILE,
        title=f"CapFilt: {output.folder.name}",
        settings=settings,
        counts=[
            (name if name == "samples" else f"samples {name}", f"{n:,}") for name, n in totals.counts.items()
        ],
        reasons=[(reason, f"{count:,}") for reason, count in totals.reasons.most_common()],
        warnings=warnings,
        remarks=_remarks(output.failures(), markers),
        shown=len(names) if len(names) < len(markers) else None,
        scores=scores,
        figures=figures or {},
        histograms=[_histogram(rows, name) for name in scores],
        sources=_sources(rows),
        groups=[
            (title, [Example(texts[0]["key"], pictures.get(_id(texts)), texts) for texts in samples])
            for title, samples in groups
        ],
    )


def _remarks(failures: Mapping[str, str], markers: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return (unit, text) for units that were set aside, or whose input is damaged or partly unused."""
    remarks = [(name, f"set aside: {error}") for name, error in failures.items()]
    for name, marker in markers.items():
        damage = marker["damage"]
        if damage:
            more = f" (and {len(damage) - 1} more in done/{name}.json)" if len(damage) > 1 else ""
            remarks.append((name, f"{damage[0]}{more}"))
    if len(remarks) > UNITS_NAMED:
        remarks[UNITS_NAMED:] = [("...", f"and {len(remarks) - UNITS_NAMED} more")]
    return remarks


def _sources(rows: Sequence[Row]) -> list[tuple[str, dict[str, str]]]:
    """Return counts, share dropped, and diversity of web and synthetic texts, before and after."""
    sources = []
    for source in ("web", "synthetic"):
        of_source = [row for row in rows if row["source"] == source]
        kept = [row["text"] for row in of_source if row["kept"]]
        if not of_source:
            continue
        figures = {"texts": f"{len(of_source):,}", "kept": f"{len(kept):,}"}
        figures["noise ratio (dropped)"] = f"{1 - len(kept) / len(of_source):.1%}"
        for when, texts in (("before", [row["text"] for row in of_source]), ("after", kept)):
            figures |= {f"{name}, {when}": f"{value:.3g}" for name, value in diversity(texts).items()}
        sources.append((source, figures))
    return sources


def _histogram(rows: Sequence[Row], score: str) -> Markup:
    """Draw the distribution of a score among the web and among the synthetic texts."""
    by_source = {
        source: [row[score] for row in rows if row["source"] == source and _is_number(row[score])]
        for source in ("web", "synthetic")
    }
    scores = [value for values in by_source.values() for value in values]
    low, high = min(scores, default=0.0), max(scores, default=1.0)
    width = (high - low) / BINS or 1.0
    series = {}
    for source, values in by_source.items():
        counts = [0] * BINS
        for value in values:
            counts[min(BINS - 1, int((value - low) / width))] += 1
        if values:
            series[source] = [
                (low + (n + 0.5) * width, count / len(values)) for n, count in enumerate(counts)
            ]
    return Markup(line_chart(series, f"{score}: share of the texts", x_label=score))


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _examples(rows: Iterable[Row], settings: Mapping[str, Any]) -> list[tuple[str, list[list[Row]]]]:
    """Return (title, samples) of each group of examples; a sample is the rows of its texts."""
    by_id: dict[SampleId, list[Row]] = {}
    for row in rows:
        if row["source"]:
            by_id.setdefault((row["shard"], row["key"]), []).append(row)
    kept_texts = {sample: sum(row["kept"] for row in texts) for sample, texts in by_id.items()}
    samples = list(by_id.items())
    groups = [
        ("One text kept, another dropped", [t for s, t in samples if 0 < kept_texts[s] < len(t)]),
        ("Nothing kept", [t for s, t in samples if not kept_texts[s]]),
        ("Everything kept", [t for s, t in samples if kept_texts[s] == len(t)]),
    ]
    groups = [(title, _spread(texts, EXAMPLES)) for title, texts in groups]
    rule = settings["rule"]
    if rule not in ("best", "fraction"):
        threshold = settings["threshold"]
        nearest = sorted(
            by_id.values(), key=lambda texts: min(abs(_value(row, rule) - threshold) for row in texts)
        )
        groups.append((f"Nearest to the threshold ({rule} {threshold})", nearest[:EXAMPLES]))
    return groups


def _value(row: Row, expression: str) -> float:
    names = metric_names_in(expression)
    if not all(_is_number(row.get(name)) for name in names):
        return math.inf
    return main_metric({name: row[name] for name in names}, expression)


def _spread(items: list[Any], limit: int) -> list[Any]:
    """Return at most `limit` of `items`, evenly spaced."""
    count = min(limit, len(items))
    return [items[n * len(items) // count] for n in range(count)]


def _id(texts: Sequence[Row]) -> SampleId:
    return texts[0]["shard"], texts[0]["key"]


def _pictures(
    output: OutputReader, sources: Any, samples: Iterable[Sequence[Row]]
) -> dict[SampleId, Thumbnail]:
    """Return pictures from the cleaned shards or, of samples that keep nothing, from the input shards."""
    missing: dict[str, set[str]] = {}
    for shard, key in map(_id, samples):
        missing.setdefault(shard, set()).add(key)
    pictures: dict[SampleId, Thumbnail] = {}
    for shard, keys in missing.items():
        source = sources.get(shard, "") if isinstance(sources, Mapping) else ""
        for tar in (output.tar(shard), Path(source)):
            for key, content in images_in_tar(tar, keys):
                with suppress(ImageError):  # the row beside it says why
                    pictures[shard, key] = shrink(open_image(io.BytesIO(content), name=key))
            keys -= {key for name, key in pictures if name == shard}
    return pictures
