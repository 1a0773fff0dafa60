"""Which scored texts of a sample are kept, and why the others are not."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lavis_lite.capfilt.settings import SelectionSettings
from lavis_lite.metrics.selection import main_metric, metric_names_in

_NOT_LETTERS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Candidate:
    """A text of an image, its scores, and the decision.

    Attributes:
        source: "web" or "synthetic".
        scores: by name, as "itm" (match probability, 0 to 1) and "itc" (similarity, -1 to 1); None for a
            score that is not known, which passes no threshold.
        reason: why it was dropped; empty if it is kept.
    """

    text: str
    source: str
    scores: Mapping[str, float | None] = field(default_factory=dict)
    kept: bool = True
    reason: str = ""

    def dropped(self, reason: str) -> Candidate:
        """Return this text as dropped for `reason`."""
        return replace(self, kept=False, reason=reason)

    def as_row(self) -> dict[str, Any]:
        """Return its columns in the table of scores."""
        return {
            "source": self.source,
            "text": self.text,
            **self.scores,
            "kept": self.kept,
            "reason": self.reason,
        }

    def value(self, expression: str) -> float:
        """Return a sum of its scores; minus infinity if one of them is None or NaN.

        >>> Candidate("a star", "web", {"itm": 0.5, "itc": 0.25}).value("itm + 4*itc")
        1.5
        """
        known = {name: score for name, score in self.scores.items() if score is not None and score == score}
        if any(name not in known for name in metric_names_in(expression)):
            return -math.inf
        return main_metric(known, expression)


def select(samples: Sequence[Sequence[Candidate]], settings: SelectionSettings) -> list[list[Candidate]]:
    """Return the candidates of each sample, kept or dropped, in the same order.

    Args:
        samples: of one shard; rule "fraction" keeps a fraction of their texts.
    """
    checked = [_drop_bad_texts(candidates, settings) for candidates in samples]
    threshold = _threshold(checked, settings)
    return [_apply_rule(candidates, threshold, settings) for candidates in checked]


def _drop_bad_texts(candidates: Sequence[Candidate], settings: SelectionSettings) -> list[Candidate]:
    """Drop texts of too few or too many words, with an unwanted pattern, or that repeat another one."""
    seen: set[str] = set()
    patterns = [re.compile(pattern, re.IGNORECASE) for pattern in settings.drop_patterns]
    checked = []
    for candidate in candidates:
        candidate = replace(candidate, kept=True, reason="")
        words = len(candidate.text.split())
        letters = _letters(candidate.text)
        match = next((pattern.pattern for pattern in patterns if pattern.search(candidate.text)), None)
        if not settings.min_words <= words <= settings.max_words:
            candidate = candidate.dropped(f"{words} words")
        elif match is not None:
            candidate = candidate.dropped(f"has {match}")
        elif settings.drop_repeats and letters in seen:
            candidate = candidate.dropped("repeats another text")
        else:
            seen.add(letters)
        checked.append(candidate)
    return checked


def _threshold(samples: Sequence[Sequence[Candidate]], settings: SelectionSettings) -> float:
    """Return the threshold of the settings, or the one that the best `fraction` of all texts reach."""
    if settings.rule != "fraction":
        return settings.threshold
    filtered = [c for candidates in samples for c in candidates if c.kept and _is_filtered(c, settings)]
    values = sorted((c.value(settings.compared_by) for c in filtered), reverse=True)
    return values[max(0, round(settings.fraction * len(values)) - 1)] if values else 0.0


def _is_filtered(candidate: Candidate, settings: SelectionSettings) -> bool:
    return settings.filtered in ("both", candidate.source)


def _apply_rule(
    candidates: Sequence[Candidate], threshold: float, settings: SelectionSettings
) -> list[Candidate]:
    decided = list(candidates)
    if settings.rule != "best":
        decided = [_apply_threshold(candidate, threshold, settings) for candidate in decided]
    if settings.near_repeats is not None:
        decided = _drop_near_repeats(decided, settings.near_repeats)
    if settings.best_synthetic is not None:
        decided = _keep_best(decided, settings, settings.best_synthetic, ("synthetic",))
    if settings.rule == "best":
        decided = _keep_best(decided, settings, 1, ("web", "synthetic"))
    return decided


def _apply_threshold(candidate: Candidate, threshold: float, settings: SelectionSettings) -> Candidate:
    if not candidate.kept or not _is_filtered(candidate, settings):
        return candidate
    expression = settings.threshold_on
    value = candidate.value(expression)
    if value >= threshold:
        return candidate
    why = "not scored" if value == -math.inf else f"{value:.4f} below {threshold:.4f}"
    return candidate.dropped(f"{expression} {why}")


def _drop_near_repeats(candidates: Sequence[Candidate], share: float) -> list[Candidate]:
    """Drop each text that has `share` of its words in common with a kept one before it."""
    before: list[set[str]] = []
    checked = []
    for candidate in candidates:
        words = set(_letters(candidate.text).split())
        if candidate.kept and any(len(words & other) >= share * len(words | other) for other in before):
            candidate = candidate.dropped("nearly repeats another text")
        elif candidate.kept:
            before.append(words)
        checked.append(candidate)
    return checked


def _keep_best(
    candidates: Sequence[Candidate], settings: SelectionSettings, count: int, sources: Sequence[str]
) -> list[Candidate]:
    """Drop all but the best `count` of the kept texts of `sources` that the rule applies to."""
    numbers = [
        number
        for number, c in enumerate(candidates)
        if c.kept and c.source in sources and _is_filtered(c, settings)
    ]
    ranked = sorted(numbers, key=lambda number: -candidates[number].value(settings.compared_by))
    lost = set(ranked[count:])
    reason = "not the best" if count == 1 else f"not among the best {count}"
    return [c.dropped(reason) if number in lost else c for number, c in enumerate(candidates)]


def _letters(text: str) -> str:
    """Return `text` without case and punctuation."""
    return _NOT_LETTERS.sub(" ", text.lower()).strip()
