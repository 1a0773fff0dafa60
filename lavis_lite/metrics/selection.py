"""One number out of several: a metric, a weighted sum of metrics, or their mean."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from lavis_lite.common.registry import suggest

_NAME = r"[A-Za-z_][\w@./-]*"
_NUMBER = r"\d+(?:\.\d+)?"
_TERM = rf"(?:{_NUMBER}\s*\*\s*)?{_NAME}"
_SUM = re.compile(rf"{_TERM}(?:\s*\+\s*{_TERM})*")
_MEAN = re.compile(rf"mean\(\s*({_NAME}(?:\s*,\s*{_NAME})*)\s*\)")


def metric_names_in(expression: str) -> list[str]:
    """Return the names of metrics in `expression`, in its order.

    >>> metric_names_in("CIDEr + Bleu_4")
    ['CIDEr', 'Bleu_4']

    Raises:
        ValueError: it is neither a name, nor a sum, nor a mean, or names a metric twice.
    """
    return list(_parse(expression)[1])


def main_metric(scores: Mapping[str, float], expression: str) -> float:
    """Return the value of `expression` over `scores`.

    >>> main_metric({"CIDEr": 1.0, "Bleu_4": 0.5}, "CIDEr + Bleu_4")
    1.5
    >>> main_metric({"CIDEr": 1.0, "Bleu_4": 0.5}, "mean(CIDEr, Bleu_4)")
    0.75
    >>> main_metric({"itm": 0.5, "itc": 0.25}, "itm + 4*itc")
    1.5

    Raises:
        ValueError: it cannot be read, or names a metric that is not in `scores`; the message has the nearest.
    """
    is_mean, weights = _parse(expression)
    for name in weights:
        if name not in scores:
            raise ValueError(f"{expression!r}: there is no {name!r} here.{suggest(name, scores)}")
    total = float(sum(weight * scores[name] for name, weight in weights.items()))
    return total / len(weights) if is_mean else total


@functools.lru_cache
def _parse(expression: str) -> tuple[bool, dict[str, float]]:
    """Return whether `expression` is a mean, and the names in it with their weights."""
    text = expression.strip()
    mean = _MEAN.fullmatch(text)
    if mean is None and _SUM.fullmatch(text) is None:
        raise ValueError(
            f"{expression!r} cannot be read. Write a metric (CIDEr), a sum (CIDEr + Bleu_4, 2*CIDEr + SPICE) "
            f"or a mean (mean(METEOR, ROUGE_L, CIDEr))."
        )
    weights: dict[str, float] = {}
    for term in re.split(r"[,+]", mean[1] if mean else text):
        factor, star, name = term.rpartition("*")
        if name.strip() in weights:
            raise ValueError(f"{expression!r} names {name.strip()} twice.")
        weights[name.strip()] = float(factor) if star else 1.0
    return mean is not None, weights
