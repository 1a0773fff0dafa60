"""Recall of image-text retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

CUTOFFS = (1, 5, 10)


def retrieval_metrics(
    image_to_text: np.ndarray,
    text_to_image: np.ndarray,
    texts_of_image: Mapping[int, Sequence[int]],
    image_of_text: Mapping[int, int],
) -> dict[str, float]:
    """Return recalls in percent, under LAVIS's names.

    ``txt_r1`` is TR@1 (an image finds one of its texts), ``img_r1`` IR@1 (a text finds its image),
    ``txt_r_mean`` and ``img_r_mean`` the means over 1, 5 and 10, ``r_mean`` the mean of these two.
    A wrong candidate that scores the same as the right one counts as being before it.

    Args:
        image_to_text: (images, texts) scores; `text_to_image` is (texts, images).
        texts_of_image: image number -> numbers of its texts.
        image_of_text: text number -> number of its image.
    """
    text_ranks = [
        rank_of_the_best(image_to_text[image], list(texts))
        for image, texts in texts_of_image.items()
        if len(texts)
    ]
    image_ranks = [rank_of_the_best(text_to_image[text], [image]) for text, image in image_of_text.items()]
    return recalls(text_ranks, image_ranks)


def recalls(text_ranks: Sequence[int], image_ranks: Sequence[int]) -> dict[str, float]:
    """Return the same of ranks: how many wrong candidates each query puts before a right one."""
    metrics = _recalls("txt", text_ranks) | _recalls("img", image_ranks)
    metrics["r_mean"] = (metrics["txt_r_mean"] + metrics["img_r_mean"]) / 2
    return metrics


def rank_of_the_best(scores: np.ndarray, right: list[int]) -> int:
    """Return how many wrong candidates come before the best right one."""
    best = scores[right].max()
    wrong = np.ones(len(scores), dtype=bool)
    wrong[right] = False
    return int((scores[wrong] >= best).sum())


def _recalls(name: str, ranks: Sequence[int]) -> dict[str, float]:
    places = np.asarray(ranks)
    shares = {f"{name}_r{cutoff}": 100 * float((places < cutoff).mean()) for cutoff in CUTOFFS}
    return shares | {f"{name}_r_mean": sum(shares.values()) / len(CUTOFFS)}
