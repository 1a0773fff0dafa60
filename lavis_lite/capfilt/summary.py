"""Summary of an output folder for a person: counts, speed, remaining time, warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lavis_lite.capfilt.output_reader import OutputReader

# A usable result keeps more than this share of its samples, and most of its input can be read.
LEAST_SHARE_KEPT = 0.01
LARGEST_SHARE_FAILED = 0.5
REASONS_SHOWN = 5
COUNTS = ("samples", "kept", "filtered", "failed")


@dataclass
class Totals:
    """The counts of all finished units together.

    Attributes:
        damaged: units with damaged or unused input.
        reasons: kind of failure -> samples.
        texts, kept_texts: source -> texts.
        knows_texts: the texts of all units were counted, which version 0.1.0 did not do.
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

    @property
    def counts(self) -> dict[str, int]:
        """The samples: all, kept, filtered, failed."""
        return {name: getattr(self, name) for name in COUNTS}

    def noise_ratios(self) -> dict[str, float]:
        """Return what share of each source's texts was dropped: "noise_web", "noise_synthetic"."""
        return {
            f"noise_{source}": (count - self.kept_texts[source]) / count
            for source, count in sorted(self.texts.items())
        }


def totals_of(markers: Iterable[Mapping[str, Any]]) -> Totals:
    """Add up the markers of finished units."""
    totals = Totals()
    for marker in markers:
        totals.units += 1
        for key in COUNTS:
            setattr(totals, key, getattr(totals, key) + marker[key])
        totals.damaged += bool(marker["damage"])
        totals.reasons.update(marker.get("reasons", {}))
        totals.knows_texts &= "texts" in marker
        for source, counts in marker.get("texts", {}).items():
            totals.texts[source] += counts["all"]
            totals.kept_texts[source] += counts["kept"]
    return totals


def status_lines(output: OutputReader, failed: Sequence[str] = ()) -> list[str]:
    """Return what is done, how fast it went, and what looks wrong.

    Args:
        failed: units to name, with their errors.

    Raises:
        CapFiltError: not an output folder of capfilt.
    """
    begun_with = output.settings()
    totals = totals_of(output.markers().values())
    failures = output.failures()
    counts = ", ".join(
        f"{count} {name}{_share(count, totals.samples)}" for name, count in list(totals.counts.items())[1:]
    )
    lines = [
        f"{totals.units} shards done, {len(failures)} set aside, {totals.damaged} damaged",
        f"{totals.samples} samples, {counts}",
    ]
    if totals.reasons:
        reasons = ", ".join(f"{count} {reason}" for reason, count in totals.reasons.most_common())
        lines.append(f"failed samples: {reasons}")
    lines += _speed_lines(output.time_records(), totals.units, len(begun_with["shards"]))
    lines += [f"WARNING: {warning}" for warning in warnings_about(totals, begun_with)]
    for name in failed:
        error = failures.get(name, "see the log")
        lines.append(f"{name}: set aside, the same command tries it again: {error}")
    return lines


def warnings_about(totals: Totals, begun_with: Mapping[str, Any]) -> list[str]:
    """Return what a user should look at before the result is used.

    Args:
        begun_with: the settings.json of the output folder.
    """
    settings = begun_with["settings"]
    warnings = []
    if totals.failed and totals.failed >= LARGEST_SHARE_FAILED * totals.samples:
        reasons = ", ".join(reason for reason, _ in totals.reasons.most_common(REASONS_SHOWN))
        warnings.append(
            f"{totals.failed / totals.samples:.1%} of the samples failed ({reasons}). "
            "The column 'reason' of scores/*.parquet says why for each."
        )
    usable = totals.samples - totals.failed
    if usable and totals.kept <= LEAST_SHARE_KEPT * usable:
        warnings.append(f"only {totals.kept} of {usable} usable samples keep a text. {_hint(settings)}")
    elif settings["rule"] not in ("best", "fraction"):
        # `best_synthetic` asks for few synthetic texts
        for source in ["web"] if settings["best_synthetic"] is not None else sorted(totals.texts):
            count, kept = totals.texts[source], totals.kept_texts[source]
            if count and kept <= LEAST_SHARE_KEPT * count:
                warnings.append(f"of {count} {source} texts, only {kept} are kept. {_hint(settings)}")
    if usable and totals.knows_texts and not totals.texts["web"]:
        warnings.append(
            f"no sample has a text of its own (text key {begun_with.get('text_key')!r}); if there should be "
            "some, see --text-key."
        )
    return warnings


def _hint(settings: Mapping[str, Any]) -> str:
    rule = f"rule {settings['rule']!r}"
    if settings["rule"] not in ("best", "fraction"):
        rule += f" with threshold {settings['threshold']:g}"
    return (
        f"Look at the reasons in scores/*.parquet and at {rule}, min_words, max_words and drop_patterns; "
        "`lavis-lite capfilt refilter` tries other values without the models."
    )


def _share(count: int, total: int) -> str:
    return f" ({count / total:.1%})" if count and total else ""


def _speed_lines(records: Sequence[Mapping[str, float]], done: int, units: int) -> list[str]:
    """Return how fast the units were done, and how long the others will take."""
    samples = round(sum(record["samples"] for record in records))
    busy = sum(record["seconds"] for record in records)
    if not samples or not busy:
        return ["no image done yet"]
    elapsed = max(r["finished"] for r in records) - min(r["finished"] - r["seconds"] for r in records)
    lines = [
        f"{samples / busy:.1f} images a second and worker; {samples} in {elapsed:.0f} s, "
        f"{samples / max(elapsed, 1e-9):.1f} a second"
    ]
    if done < units:
        duration = _duration((units - done) * elapsed / len(records))
        lines.append(f"{units - done} of {units} units to do: about {duration}")
    return lines


def _duration(seconds: float) -> str:
    """Write seconds for a person.

    >>> _duration(4000)
    '1 h 6 min'
    """
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.1f} days"
    if seconds >= 3600:
        return f"{int(seconds / 3600)} h {int(seconds / 60 % 60)} min"
    return f"{int(seconds / 60)} min {int(seconds % 60)} s"
