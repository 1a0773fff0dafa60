"""The filter's decision, apart from the models: which texts of a sample are kept, and why not."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lavis_lite.capfilt.settings import SelectionSettings
from lavis_lite.metrics.selection import main_metric, metric_names_in

_LETTERS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Candidate:
    """A text of an image, its scores, and what became of it.

    Attributes:
        source: "web" or "synthetic".
        scores: by name, as "itm" (match probability, 0 to 1) and "itc" (similarity, -1 to 1); None
            where there is none, which no threshold lets pass.
        reason: why it was dropped; empty where it was kept.
    """

    text: str
    source: str
    scores: Mapping[str, float | None] = field(default_factory=dict)
    kept: bool = True
    reason: str = ""

    def flat(self) -> dict[str, Any]:
        """Return it as plain values, each score under its own name."""
        return {
            "source": self.source,
            "text": self.text,
            **self.scores,
            "kept": self.kept,
            "reason": self.reason,
        }


def select(samples: Sequence[Sequence[Candidate]], settings: SelectionSettings) -> list[list[Candidate]]:
    """Return the candidates of each sample with the decision made; none is taken out.

    Args:
        samples: of one shard, which is what "fraction" is a fraction of.
    """
    sane = [_sane(candidates, settings) for candidates in samples]
    least = _threshold(sane, settings)
    return [_decided(candidates, least, settings) for candidates in sane]


def _decided(candidates: Sequence[Candidate], least: float, settings: SelectionSettings) -> list[Candidate]:
    judged = [_judged(candidate, least, settings) for candidate in candidates]
    if settings.near_repeats is not None:
        judged = _drop_near_repeats(judged, settings.near_repeats)
    if settings.best_synthetic is not None:
        judged = _keep_best(judged, settings, settings.best_synthetic, "synthetic")
    if settings.rule == "best":
        judged = _keep_best(judged, settings, 1)
    return judged


def _drop_near_repeats(candidates: Sequence[Candidate], share: float) -> list[Candidate]:
    """Drop what has `share` of its words in common with a text before that is kept."""
    before: list[set[str]] = []
    checked = []
    for candidate in candidates:
        words = set(_letters(candidate.text).split())
        if candidate.kept and any(len(words & other) >= share * len(words | other) for other in before):
            candidate = replace(candidate, kept=False, reason="nearly repeats another text")
        elif candidate.kept:
            before.append(words)
        checked.append(candidate)
    return checked


def _keep_best(
    candidates: Sequence[Candidate], settings: SelectionSettings, count: int, source: str | None = None
) -> list[Candidate]:
    """Drop all but the best `count` of those that are still kept and that the rule is asked about."""
    asked = [c for c in candidates if c.kept and is_asked(c, settings) and source in (None, c.source)]
    best = {id(c) for c in sorted(asked, key=lambda c: -value_of(c, settings.compared_by))[:count]}
    lost = {id(c) for c in asked} - best
    why = "not the best" if count == 1 else f"not among the best {count}"
    return [replace(c, kept=False, reason=why) if id(c) in lost else c for c in candidates]


def is_asked(candidate: Candidate, settings: SelectionSettings) -> bool:
    """Whether the rule decides about this text."""
    return settings.filtered == "both" or settings.filtered == candidate.source


def _sane(candidates: Sequence[Candidate], settings: SelectionSettings) -> list[Candidate]:
    seen: set[str] = set()
    unwanted = [re.compile(pattern, re.IGNORECASE) for pattern in settings.drop_patterns]
    checked = []
    for candidate in candidates:
        words = len(candidate.text.split())
        letters = _letters(candidate.text)
        found = next((pattern.pattern for pattern in unwanted if pattern.search(candidate.text)), None)
        if not settings.min_words <= words <= settings.max_words:
            candidate = replace(candidate, kept=False, reason=f"{words} words")
        elif found is not None:
            candidate = replace(candidate, kept=False, reason=f"has {found}")
        elif settings.drop_repeats and letters in seen:
            candidate = replace(candidate, kept=False, reason="repeats another text")
        else:
            candidate = replace(candidate, kept=True, reason="")
            seen.add(letters)
        checked.append(candidate)
    return checked


def _letters(text: str) -> str:
    return _LETTERS.sub(" ", text.lower()).strip()


def value_of(candidate: Candidate, expression: str) -> float:
    """Return a sum of scores, as "itm + 4*itc"; minus infinity where one of them is missing or NaN.

    >>> value_of(Candidate("a star", "web", {"itm": 0.5, "itc": 0.25}), "itm + 4*itc")
    1.5
    """
    known = {
        name: value for name, value in candidate.scores.items() if value is not None and not math.isnan(value)
    }
    if any(name not in known for name in metric_names_in(expression)):
        return -math.inf
    return main_metric(known, expression)


def _threshold(samples: Sequence[Sequence[Candidate]], settings: SelectionSettings) -> float:
    if settings.rule != "fraction":
        return settings.threshold
    values = sorted(
        (
            value_of(c, settings.compared_by)
            for candidates in samples
            for c in candidates
            if c.kept and is_asked(c, settings)
        ),
        reverse=True,
    )
    return values[max(0, round(settings.fraction * len(values)) - 1)] if values else 0.0


def _judged(candidate: Candidate, least: float, settings: SelectionSettings) -> Candidate:
    if not candidate.kept or not is_asked(candidate, settings) or settings.rule == "best":
        return candidate
    expression = settings.threshold_on
    value = value_of(candidate, expression)
    if value >= least:
        return candidate
    found = "not scored" if value == -math.inf else f"{value:.4f} below {least:.4f}"
    return replace(candidate, kept=False, reason=f"{expression} {found}")
