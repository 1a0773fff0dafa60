"""One optimizer step: skipped on the device as on the host, and reports beside the losses."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lavis_lite.common.batch import Batch, Position, StepOutput
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.logs.metrics import MetricLog
from lavis_lite.common.optim import SchedulePlan, build_optimizer, parameter_groups
from lavis_lite.common.signals import StopSignals
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.strategies import SingleProcess
from lavis_lite.runners.train_step import StepResult, TrainStep
from lavis_lite.tasks.base_task import BaseTask

CPU = torch.device("cpu")


class Mean(nn.Module):
    """A model whose loss is the mean output, and that reports a number that is not minimized."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, samples: dict[str, Any]) -> dict[str, Any]:
        loss = self.layer(samples["image"]).mean()
        return {"loss": loss, "loss_half": loss / 2, "report": {"temperature": torch.tensor(0.07)}}


def step_of(model: nn.Module, on_device: bool) -> TrainStep:
    config = RunConfig(init_lr=0.1, warmup_steps=0, lr_sched="constant_lr")
    train_step = TrainStep(config, SingleProcess(model), SchedulePlan.of(config, 1, 9), Precision(False, CPU))
    if on_device:
        train_step.skips_on_device = True
        groups = parameter_groups(model, config.weight_decay, {})
        train_step.optimizer = build_optimizer("adamw", model, groups, 0.1, (0.9, 0.999), fused=True)
    return train_step


def run(train_step: TrainStep, image: Tensor, metrics: MetricLog, task: Any = None) -> StepResult:
    window = [Batch({"image": image}, position=Position(0, 0, 1))]
    task = task or BaseTask(RunConfig())
    return train_step.run(task, window, 0, metrics, StopSignals(), bad_samples=0)


@pytest.mark.parametrize("on_device", [False, True])
def test_a_step_that_is_not_finite_changes_neither_weights_nor_moments(on_device):
    model, metrics = Mean(), MetricLog()
    train_step = step_of(model, on_device)
    assert run(train_step, torch.ones(3, 2), metrics).updated
    before = copy.deepcopy((model.state_dict(), train_step.state_dict()["optimizer"]["state"]))
    result = run(train_step, torch.full((3, 2), math.inf), metrics)
    assert not result.updated and not math.isfinite(result.gradient_norm)
    after = model.state_dict(), train_step.state_dict()["optimizer"]["state"]
    for name, weight in before[0].items():
        assert torch.equal(weight, after[0][name])
    for index, moments in before[1].items():
        assert all(torch.equal(value, after[1][index][name]) for name, value in moments.items())
    assert run(train_step, torch.ones(3, 2), metrics).updated


def test_a_fused_optimizer_loads_the_moments_of_another_one():
    """As a run does that moves from a CPU to a GPU."""
    model, metrics = Mean(), MetricLog()
    train_step = step_of(model, on_device=False)
    run(train_step, torch.ones(3, 2), metrics)
    twin = copy.deepcopy(model)
    fused = step_of(twin, on_device=True)
    fused.load_state_dict(copy.deepcopy(train_step.state_dict()))
    assert all(group["fused"] for group in fused.optimizer.param_groups)
    run(train_step, torch.ones(3, 2), metrics)
    run(fused, torch.ones(3, 2), metrics)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(twin.state_dict()[name], weight)


def test_the_log_shows_losses_and_what_is_not_minimized():
    metrics = MetricLog()
    result = run(step_of(Mean(), on_device=False), torch.ones(3, 2), metrics)
    values = metrics.compute()
    assert values["temperature"] == pytest.approx(0.07)
    assert values["loss"] == pytest.approx(result.loss)
    assert values["loss_half"] == pytest.approx(result.loss / 2)


class TaskOfLavis(BaseTask):
    """A task as written for LAVIS: it overrides `train_step`, reads samples and returns a tuple."""

    def train_step(self, model: nn.Module, samples: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        assert (samples["epoch"], samples["iters"], samples["num_iters_per_epoch"]) == (0, 0, 1)
        loss = model(samples)["loss"] * len(samples["image"])
        return loss, {"loss": loss}


def test_a_task_of_lavis_works_as_written():
    metrics = MetricLog()
    result = run(step_of(Mean(), on_device=False), torch.ones(3, 2), metrics, TaskOfLavis(RunConfig()))
    assert result.updated
    assert metrics.compute()["loss"] == pytest.approx(result.loss)


def test_a_filler_counts_nothing():
    output = BaseTask(RunConfig()).train_on_batch(Mean(), Batch({"image": torch.ones(3, 2)}, filler=True))
    assert isinstance(output, StepOutput) and output.weight == 0.0
