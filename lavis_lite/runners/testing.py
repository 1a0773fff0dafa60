"""Testing the best weights of a run once: evaluate.json says of which weights and settings it is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lavis_lite.common import distributed
from lavis_lite.common.checkpoint.store import load_file
from lavis_lite.common.results import write_results
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.runners.made_with import describe_evaluation

if TYPE_CHECKING:
    from lavis_lite.runners.runner_base import RunnerBase

logger = logging.getLogger(__name__)


def test_best(runner: RunnerBase) -> None:
    """Evaluate the best checkpoint of a trained run on the test splits, unless that was done before.

    Raises:
        CheckpointError: the best checkpoint is damaged.
    """
    file = runner.folder.evaluate_file
    step = _load_best(runner)
    made_with = _describe(runner, step)
    standing = distributed.broadcast_object(standing_results(runner.folder))
    if standing == made_with:
        logger.info("This run is complete: %s.", file)
        return
    if standing is not None:
        before = standing.get("step", "unknown")
        logger.info("%s holds results of step %s; they are replaced by those of step %s.", file, before, step)
    test_weights(runner, made_with)


def test_weights(runner: RunnerBase, made_with: Mapping[str, Any]) -> None:
    """Evaluate the weights at hand on the test splits and write evaluate.json.

    Args:
        runner: with the weights to test.
        made_with: from `describe_evaluation`.
    """
    metrics = runner.evaluate(runner.config.test_splits, kind="test")
    if distributed.is_rank_zero():
        write_results(runner.folder.evaluate_file, metrics, made_with)


def test_is_due(runner: RunnerBase) -> bool:
    """Return True where a run is at its end and evaluate.json is not of the step and settings to test."""
    state = runner.state
    if not runner.has_ended:
        return False
    standing = distributed.broadcast_object(standing_results(runner.folder))
    step = state.step if state.best_step is None else state.best_step
    return standing is None or {**standing, "weights": ""} != _describe(runner, step, weights="")


def standing_results(folder: RunFolder) -> dict[str, Any] | None:
    """Return what the results in a folder were made with, {} where they do not say; None without results."""
    metrics, made_with = folder.test_results() or ({}, {})
    return made_with if metrics else None


def _describe(runner: RunnerBase, step: int, weights: str | None = None) -> dict[str, Any]:
    with runner.eval_weights() as model:
        return describe_evaluation(
            runner.config, runner.sections, model, runner.datasets, runner.precision, step, weights
        )


def _load_best(runner: RunnerBase) -> int:
    """Take the weights of the best checkpoint, or stay with those at hand; return their step."""
    best_file, state = runner.store.best, runner.state
    if state.best_step is None:
        return state.step
    if not best_file.is_file():
        logger.warning("%s is missing: the last weights are tested instead.", best_file)
        return state.step
    best = load_file(best_file)
    if best["step"] != state.best_step:
        logger.warning(
            "%s is of step %s, but step %s was the best: the run was resumed before that step with other "
            "settings. What is tested is step %s.",
            best_file,
            best["step"],
            state.best_step,
            best["step"],
        )
    runner.model.load_weights(best["model"], source=str(best_file))
    runner.strategy.load_whole()
    runner.average = None  # the best weights are averages already
    return int(best["step"])
