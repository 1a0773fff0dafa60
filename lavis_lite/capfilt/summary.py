"""What a person is told at the end of a run: counts, shares, and what looks wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis_lite.capfilt.begin import read_settings
from lavis_lite.capfilt.markers import read_markers
from lavis_lite.capfilt.timing import read_time_records, summary

# A clean crawl keeps more than this share of its samples, and can read more than half of them.
LEAST_SHARE_KEPT = 0.01
LARGEST_SHARE_FAILED = 0.5
REASONS_SHOWN = 5


@dataclass
class Totals:
    """The counts of all finished units together.

    Attributes:
        reasons: kind of failure -> samples.
        texts, kept_texts: source -> texts.
        damaged: units about whose input something is to be said.
        knows_texts: whether the texts of all units were counted; version 0.1.0 did not.
    """

    units: int = 0
    samples: int = 0
    kept: int = 0
    filtered: int = 0
    failed: int = 0
    damaged: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    kept_texts: Counter[str] = field(default_factory=Counter)
    knows_texts: bool = True


def totals_of(markers: Iterable[Mapping[str, Any]]) -> Totals:
    """Add up the markers of finished units."""
    totals = Totals()
    for marker in markers:
        totals.units += 1
        for key in ("samples", "kept", "filtered", "failed"):
            setattr(totals, key, getattr(totals, key) + marker[key])
        totals.damaged += bool(marker["damage"])
        totals.reasons.update(marker.get("reasons", {}))
        totals.knows_texts &= "texts" in marker
        for source, counts in marker.get("texts", {}).items():
            totals.texts[source] += counts["all"]
            totals.kept_texts[source] += counts["kept"]
    return totals


def status_lines(folder: Path) -> list[str]:
    """Return how far an output folder is, how fast it went, and what looks wrong.

    Raises:
        CapFiltError: it is not an output folder of capfilt.
    """
    begun_with = read_settings(folder)
    totals = totals_of(read_markers(folder, any_version=True).values())
    failed = len(list((folder / "failed").glob("*.txt")))
    lines = [f"{totals.units} shards done, {failed} set aside, {totals.damaged} damaged"]
    counts = ", ".join(
        f"{getattr(totals, key)} {key}{_share(getattr(totals, key), totals.samples)}"
        for key in ("kept", "filtered", "failed")
    )
    lines.append(f"{totals.samples} samples, {counts}")
    if totals.reasons:
        reasons = ", ".join(f"{count} {reason}" for reason, count in totals.reasons.most_common())
        lines.append(f"failed samples: {reasons}")
    lines.append(summary(read_time_records(folder), len(begun_with["shards"])))
    return [*lines, *(f"WARNING: {warning}" for warning in warnings_about(totals, begun_with))]


def warnings_about(totals: Totals, begun_with: Mapping[str, Any]) -> list[str]:
    """Return what a person should look at before the result is used.

    Args:
        begun_with: the settings.json of the output folder.
    """
    settings = begun_with["settings"]
    warnings = []
    if totals.failed and totals.failed >= LARGEST_SHARE_FAILED * totals.samples:
        reasons = ", ".join(reason for reason, _ in totals.reasons.most_common(REASONS_SHOWN))
        warnings.append(
            f"{_percent(totals.failed, totals.samples)} of the samples failed ({reasons}). "
            "The column 'reason' of scores/*.parquet says why for each."
        )
    usable = totals.samples - totals.failed
    if usable and totals.kept <= LEAST_SHARE_KEPT * usable:
        warnings.append(f"only {totals.kept} of {usable} usable samples keep a text. {_remedy(settings)}")
    else:
        warnings += _about_sources(totals, settings)
    if usable and totals.knows_texts and not totals.texts["web"]:
        warnings.append(
            f"no sample has a text of its own (text key {begun_with.get('text_key')!r}); if there should be "
            "some, see --text-key."
        )
    return warnings


def _about_sources(totals: Totals, settings: Mapping[str, Any]) -> list[str]:
    """Warn of a source that loses nearly all of its texts where the rule does not ask for that."""
    if settings["rule"] in ("best", "fraction"):
        return []
    sources = ["web"] if settings["best_synthetic"] is not None else sorted(totals.texts)
    return [
        f"of {totals.texts[source]} {source} texts, only {totals.kept_texts[source]} are kept. "
        f"{_remedy(settings)}"
        for source in sources
        if totals.texts[source] and totals.kept_texts[source] <= LEAST_SHARE_KEPT * totals.texts[source]
    ]


def _remedy(settings: Mapping[str, Any]) -> str:
    asked = f"rule {settings['rule']!r}"
    if settings["rule"] not in ("best", "fraction"):
        asked += f" with threshold {settings['threshold']:g}"
    return (
        f"Look at the reasons in scores/*.parquet and at {asked}, min_words, max_words and drop_patterns; "
        "`lavis-lite capfilt refilter` tries other values without the models."
    )


def failure_lines(folder: Path, names: Sequence[str]) -> list[str]:
    """Return a line for each unit that failed, with its error."""
    lines = []
    for name in names:
        note = folder / "failed" / f"{name}.txt"
        reason = note.read_text(encoding="utf-8").strip() if note.is_file() else "see the log"
        lines.append(f"{name}: set aside, the same command tries it again: {reason}")
    return lines


def _share(count: int, total: int) -> str:
    return f" ({_percent(count, total)})" if total and count else ""


def _percent(count: int, total: int) -> str:
    return f"{count / total:.1%}"
