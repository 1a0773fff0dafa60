"""Which validation is the best so far."""

from __future__ import annotations

import math

import pytest

from lavis_lite.runners.state import TrainState


def best_steps(*scores: float) -> tuple[int | None, int]:
    """Return the best step after validations with `scores`, and how many are without a gain."""
    state = TrainState()
    for step, score in enumerate(scores, start=1):
        state.step = step
        state.improves(score)
    return state.best_step, state.validations_without_gain


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_never_the_best(score):
    assert best_steps(score, 1.0, score, 2.0) == (4, 0)
    assert best_steps(score, score) == (None, 2)


def test_of_scores_of_0_the_latest_is_the_best_and_none_is_a_gain():
    assert best_steps(0.0, 0.0, 0.0) == (3, 2)
    assert best_steps(0.0, 0.0, 0.1, 0.0) == (3, 1)


def test_of_equal_scores_the_first_is_the_best():
    assert best_steps(0.5, 0.7, 0.7) == (2, 1)
