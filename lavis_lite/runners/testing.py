"""Testing the best weights of a run, and evaluate.json, which says what its results were made with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch

from lavis_lite.common import distributed
from lavis_lite.common.checkpoint.store import load_file
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.results import library_version, settings_digest, state_dict_digest, write_results
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.runners.precision import Precision

if TYPE_CHECKING:
    from lavis_lite.runners.runner_base import RunnerBase

logger = logging.getLogger(__name__)
# Settings of the model that do not change results: the digest identifies the weights.
_NOT_OF_THE_RESULT = {
    "load_finetuned",
    "finetuned",
    "load_pretrained",
    "pretrained",
    "vit_grad_ckpt",
    "vit_ckpt_layer",
}


def test_best(runner: RunnerBase) -> None:
    """Evaluate the best checkpoint of a trained run on the test splits, unless that was done before.

    Raises:
        CheckpointError: the best checkpoint is damaged.
    """
    file = runner.folder.evaluate_file
    made_with = _describe(runner, _load_best(runner))
    existing = distributed.broadcast_object(existing_results(runner.folder))
    if existing == made_with:
        logger.info("This run is complete: %s.", file)
        return
    if existing is not None:
        before, now = existing.get("step", "unknown"), made_with["step"]
        logger.info("%s holds results of step %s; they are replaced by those of step %s.", file, before, now)
    test_weights(runner, made_with)


def test_weights(runner: RunnerBase, made_with: Mapping[str, Any]) -> None:
    """Evaluate the current weights on the test splits and write evaluate.json.

    Args:
        made_with: from `describe_evaluation`.
    """
    metrics = runner.evaluate(runner.config.test_splits, kind="test")
    if distributed.is_rank_zero():
        write_results(runner.folder.evaluate_file, metrics, made_with)


def test_is_due(runner: RunnerBase) -> bool:
    """Return True if a run has ended and evaluate.json is not of the step and settings to test."""
    if not runner.has_ended:
        return False
    existing = distributed.broadcast_object(existing_results(runner.folder))
    step = runner.state.step if runner.state.best_step is None else runner.state.best_step
    return existing is None or {**existing, "weights": ""} != _describe(runner, step, weights="")


def existing_results(folder: RunFolder) -> dict[str, Any] | None:
    """Return what the results in a folder were made with, {} if they do not say; None without results."""
    metrics, made_with = folder.test_results() or ({}, {})
    return made_with if metrics else None


def _load_best(runner: RunnerBase) -> int:
    """Load the best checkpoint, or keep the current weights if there is none; return their step."""
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
            "settings. Step %s is tested.",
            best_file,
            best["step"],
            state.best_step,
            best["step"],
        )
    runner.model.load_weights(best["model"], source=str(best_file))
    runner.strategy.load_whole()
    runner.average = None  # the best weights are averages already
    return int(best["step"])


def _describe(runner: RunnerBase, step: int, weights: str | None = None) -> dict[str, Any]:
    with runner.eval_weights() as model:
        return describe_evaluation(
            runner.config, runner.sections, model, runner.datasets, runner.precision, step, weights
        )


def describe_evaluation(
    config: RunConfig,
    sections: Mapping[str, Any],
    model: Any,
    datasets: Mapping[str, Sequence[Any]],
    precision: Precision,
    step: int | None,
    weights: str | None = None,
) -> dict[str, Any]:
    """Return what an evaluation on the test splits is made with: equal descriptions give equal results.

    Args:
        config: the ``run`` section.
        sections: the resolved config.
        model: the whole model, with the weights to test.
        datasets: split -> data sets of that split.
        precision: what the model computes in.
        step: optimizer steps that the weights were trained for, None if unknown.
        weights: their digest; computed if None.
    """
    of_the_task = {field.name for field in fields(config)} - {field.name for field in fields(RunConfig)}
    used = {
        "model": {key: v for key, v in sections["model"].items() if key not in _NOT_OF_THE_RESULT},
        "datasets": sections["datasets"],
    }
    if weights is None:
        weights = distributed.broadcast_object(
            state_dict_digest(model.state_dict()) if distributed.is_rank_zero() else None
        )
    return {
        "step": step,
        "weights": weights,
        "model": sections["model"]["arch"],
        "data": {
            split: {
                "data_sets": [
                    getattr(dataset, "name", type(dataset).__name__) for dataset in datasets[split]
                ],
                "samples": sum(len(dataset) for dataset in datasets[split]),
            }
            for split in config.test_splits
        },
        "settings": {key: sections["run"][key] for key in sorted(of_the_task)},
        "inference": model.inference_settings(),
        "model_and_data_settings": settings_digest(used),
        "precision": str(precision.dtype or torch.float32).removeprefix("torch."),
        "seed": config.seed,
        "version": library_version(),
    }
