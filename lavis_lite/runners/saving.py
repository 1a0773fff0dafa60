"""Writing the checkpoints of a run; `resuming` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lavis_lite.common import distributed
from lavis_lite.common.batch import Model
from lavis_lite.common.seeding import rng_state

if TYPE_CHECKING:
    from lavis_lite.runners.runner_base import RunnerBase


def save_resumable(runner: RunnerBase) -> None:
    """Write everything that an exact continuation needs; all ranks call it."""
    content = {
        **runner.train_step.state_dict(),
        "average": runner.average.state_dict() if runner.average else None,
        "state": runner.state.state_dict(),
        "data": runner.loader.layout,
        "metrics": runner.metrics.state_dict(),
        "ranks": distributed.gather_objects(
            {"rng": rng_state(), "bad_samples": sorted(runner.bad_samples.numbers)}
        ),
    }
    with runner.strategy.whole_model() as model:
        if distributed.is_rank_zero():
            runner.store.save({**_weights(runner, model), **content}, runner.state.step)
    distributed.barrier()


def save_best(runner: RunnerBase, scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the weights to evaluate and use; all ranks call it.

    Args:
        scores: split -> metrics; the numbers among them are saved.
    """
    numbers = {
        split: {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        for split, metrics in scores.items()
    }
    with runner.eval_weights() as model:
        if distributed.is_rank_zero():
            weights = _weights(runner, model)
            runner.store.save_best({**weights, "step": runner.state.step, "scores": numbers})
    distributed.barrier()


def _weights(runner: RunnerBase, model: Model) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "inference": model.inference_settings(),
        "config": dict(runner.sections),
        "epoch": runner.state.epoch,
    }
