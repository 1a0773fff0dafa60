"""The one number that a run is judged by: a metric, a sum of metrics, or their mean."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lavis_lite.common.registry import suggest

_NAME = r"[A-Za-z_][\w@./-]*"
_SUM = re.compile(rf"{_NAME}(?:\s*\+\s*{_NAME})*")
_MEAN = re.compile(rf"mean\(\s*({_NAME}(?:\s*,\s*{_NAME})*)\s*\)")


def metric_names_in(expression: str) -> list[str]:
    """Return the names of metrics in `expression`, in its order.

    >>> metric_names_in("CIDEr + Bleu_4")
    ['CIDEr', 'Bleu_4']

    Raises:
        ValueError: it is neither a name, nor a sum, nor a mean, or names a metric twice.
    """
    return _parse(expression)[1]


def main_metric(scores: Mapping[str, float], expression: str) -> float:
    """Return the value of `expression` over `scores`.

    >>> main_metric({"CIDEr": 1.0, "Bleu_4": 0.5}, "CIDEr + Bleu_4")
    1.5
    >>> main_metric({"CIDEr": 1.0, "Bleu_4": 0.5}, "mean(CIDEr, Bleu_4)")
    0.75

    Raises:
        ValueError: it cannot be read, or names what was not measured; the message has the nearest name.
    """
    is_mean, names = _parse(expression)
    for name in names:
        if name not in scores:
            raise ValueError(f"{expression!r}: there is no {name!r} here.{suggest(name, scores)}")
    total = float(sum(scores[name] for name in names))
    return total / len(names) if is_mean else total


def _parse(expression: str) -> tuple[bool, list[str]]:
    """Return whether `expression` is a mean, and the names in it."""
    text = expression.strip()
    mean = _MEAN.fullmatch(text)
    if mean is None and _SUM.fullmatch(text) is None:
        raise ValueError(
            f"{expression!r} cannot be read. Write a metric (CIDEr), a sum (CIDEr + Bleu_4) or "
            f"a mean (mean(METEOR, ROUGE_L, CIDEr))."
        )
    names = re.findall(_NAME, mean[1] if mean else text)
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{expression!r} names {name} twice.")
    return mean is not None, names
