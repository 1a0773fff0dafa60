"""How rich a collection of texts is."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+")


def diversity(texts: Sequence[str]) -> dict[str, float]:
    """Return the number of different words, and the shares of 1-, 2- and 3-grams that are different.

    >>> diversity(["a red star", "a red star"])["distinct_2"]
    0.5
    """
    words = [_WORD.findall(text.lower()) for text in texts]
    found = {"vocabulary": float(len({word for own in words for word in own}))}
    for size in (1, 2, 3):
        grams = [tuple(own[i : i + size]) for own in words for i in range(len(own) - size + 1)]
        found[f"distinct_{size}"] = len(set(grams)) / len(grams) if grams else 0.0
    return found
