"""Diversity of a collection of texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+")


def diversity(texts: Sequence[str]) -> dict[str, float]:
    """Return the number of different words, and the share of different 1-, 2- and 3-grams.

    >>> diversity(["a red star", "a red star"])["distinct_2"]
    0.5
    """
    words = [_WORD.findall(text.lower()) for text in texts]
    figures = {"vocabulary": float(len({word for text in words for word in text}))}
    for size in (1, 2, 3):
        grams = [tuple(text[i : i + size]) for text in words for i in range(len(text) - size + 1)]
        figures[f"distinct_{size}"] = len(set(grams)) / len(grams) if grams else 0.0
    return figures
