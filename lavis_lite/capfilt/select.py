"""The filter's decision, apart from the models: which texts of a sample are kept, and why not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lavis_lite.capfilt.settings import SelectionSettings

_LETTERS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Candidate:
    """A text of an image, its scores, and what became of it.

    Attributes:
        source: "web" or "synthetic".
        itm: match probability, 0 to 1; `itc` similarity, -1 to 1. None where no model scored it.
        reason: why it was dropped; empty where it was kept.
    """

    text: str
    source: str
    itm: float | None = None
    itc: float | None = None
    kept: bool = True
    reason: str = ""


def select(samples: Sequence[Sequence[Candidate]], settings: SelectionSettings) -> list[list[Candidate]]:
    """Return the candidates of each sample with the decision made; none is taken out.

    Args:
        samples: of one shard, which is what "fraction" is a fraction of.
    """
    sane = [_sane(candidates, settings) for candidates in samples]
    least = _threshold(sane, settings)
    return [
        [_judged(c, _best_of(candidates, settings), least, settings) for c in candidates]
        for candidates in sane
    ]


def is_asked(candidate: Candidate, settings: SelectionSettings) -> bool:
    """Whether the rule decides about this text."""
    return settings.filtered == "both" or settings.filtered == candidate.source


def _sane(candidates: Sequence[Candidate], settings: SelectionSettings) -> list[Candidate]:
    seen: set[str] = set()
    checked = []
    for candidate in candidates:
        words = len(candidate.text.split())
        letters = _LETTERS.sub(" ", candidate.text.lower()).strip()
        if not settings.min_words <= words <= settings.max_words:
            candidate = replace(candidate, kept=False, reason=f"{words} words")
        elif settings.drop_repeats and letters in seen:
            candidate = replace(candidate, kept=False, reason="repeats another text")
        else:
            candidate = replace(candidate, kept=True, reason="")
            seen.add(letters)
        checked.append(candidate)
    return checked


def _score(candidate: Candidate, settings: SelectionSettings) -> float:
    if settings.rule == "itc":
        return candidate.itc
    if settings.rule == "itm+itc":
        return candidate.itm + candidate.itc
    return candidate.itm


def _threshold(samples: Sequence[Sequence[Candidate]], settings: SelectionSettings) -> float:
    if settings.rule != "fraction":
        return settings.threshold
    scores = sorted(
        (
            _score(c, settings)
            for candidates in samples
            for c in candidates
            if c.kept and is_asked(c, settings)
        ),
        reverse=True,
    )
    return scores[max(0, round(settings.fraction * len(scores)) - 1)] if scores else 0.0


def _best_of(candidates: Sequence[Candidate], settings: SelectionSettings) -> Candidate | None:
    asked = [c for c in candidates if c.kept and is_asked(c, settings)]
    return max(asked, key=lambda c: _score(c, settings), default=None)


def _judged(
    candidate: Candidate, best: Candidate | None, least: float, settings: SelectionSettings
) -> Candidate:
    if not candidate.kept or not is_asked(candidate, settings):
        return candidate
    if settings.rule == "best":
        return candidate if candidate is best else replace(candidate, kept=False, reason="not the best")
    score = _score(candidate, settings)
    if score >= least:
        return candidate
    return replace(candidate, kept=False, reason=f"{settings.rule} {score:.4f} below {least:.4f}")
