"""Recall of image-text retrieval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CUTOFFS = (1, 5, 10)


def recalls(text_ranks: Sequence[int], image_ranks: Sequence[int]) -> dict[str, float]:
    """Return recalls in percent, under LAVIS's names.

    ``txt_r1`` is TR@1 (an image finds one of its texts), ``img_r1`` IR@1 (a text finds its image),
    ``txt_r_mean`` and ``img_r_mean`` the means over 1, 5 and 10, ``r_mean`` the mean of these two.

    Args:
        text_ranks: of each image, how many wrong texts come before the best right one.
        image_ranks: of each text, how many wrong images come before the right one.
    """
    metrics = _recalls("txt", text_ranks) | _recalls("img", image_ranks)
    metrics["r_mean"] = (metrics["txt_r_mean"] + metrics["img_r_mean"]) / 2
    return metrics


def rank_of_the_best(scores: np.ndarray, right: list[int]) -> int:
    """Return how many wrong candidates come before the best right one; those of an equal score count."""
    best = scores[right].max()
    wrong = np.ones(len(scores), dtype=bool)
    wrong[right] = False
    return int((scores[wrong] >= best).sum())


def _recalls(name: str, ranks: Sequence[int]) -> dict[str, float]:
    below = np.asarray(ranks)
    shares = {f"{name}_r{cutoff}": 100 * float((below < cutoff).mean()) for cutoff in CUTOFFS}
    return shares | {f"{name}_r_mean": sum(shares.values()) / len(CUTOFFS)}
