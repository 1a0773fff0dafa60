"""Recalls against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lavis_lite.metrics.retrieval import rank_of_the_best, recalls


def retrieval_metrics(
    image_to_text: np.ndarray,
    text_to_image: np.ndarray,
    texts_of_image: dict[int, list[int]],
    image_of_text: dict[int, int],
) -> dict[str, float]:
    text_ranks = [rank_of_the_best(image_to_text[image], texts) for image, texts in texts_of_image.items()]
    image_ranks = [rank_of_the_best(text_to_image[text], [image]) for text, image in image_of_text.items()]
    return recalls(text_ranks, image_ranks)


def test_recall_is_counted_from_both_sides():
    image_to_text = np.array([[0.9, 0.1, 0.5, 0.2], [0.8, 0.1, 0.7, 0.9]])
    metrics = retrieval_metrics(
        image_to_text, image_to_text.T, {0: [0, 1], 1: [2, 3]}, {0: 0, 1: 0, 2: 1, 3: 1}
    )
    assert metrics["txt_r1"] == 100.0
    assert metrics["img_r1"] == 75.0  # text 1 likes both images alike, which does not count as found
    assert metrics["img_r5"] == 100.0
    assert metrics["img_r_mean"] == pytest.approx((75 + 100 + 100) / 3)
    assert metrics["r_mean"] == pytest.approx((100 + metrics["img_r_mean"]) / 2)


def test_the_best_of_an_images_texts_counts():
    scores = np.array([[0.1, 0.9, 0.5]])
    metrics = retrieval_metrics(scores, scores.T, {0: [0, 1]}, {0: 0, 1: 0})
    assert metrics["txt_r1"] == 100.0


def test_equal_scores_are_not_a_hit():
    scores = np.zeros((20, 20))
    own = {number: [number] for number in range(20)}
    metrics = retrieval_metrics(scores, scores, own, {number: number for number in range(20)})
    assert metrics["txt_r10"] == metrics["img_r10"] == 0.0


def test_recall_agrees_with_sorting_on_random_scores():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(30, 30))
    own = {number: number for number in range(30)}
    metrics = retrieval_metrics(scores, scores.T, {image: [text] for image, text in own.items()}, own)
    order = np.argsort(-scores, axis=1)
    for cutoff in (1, 5, 10):
        found = [image in order[image, :cutoff] for image in range(30)]
        assert metrics[f"txt_r{cutoff}"] == pytest.approx(100 * np.mean(found))
