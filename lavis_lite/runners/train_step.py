"""One optimizer step over a window of batches, in any precision and on any number of ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lavis_lite.common import distributed
from lavis_lite.common.batch import Batch, StepOutput
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.logs.metrics import MetricLog
from lavis_lite.common.optim import SchedulePlan, build_optimizer, parameter_groups
from lavis_lite.common.registry import registry
from lavis_lite.common.signals import StopSignals
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.strategies import SingleProcess


@dataclass
class StepResult:
    """The outcome of a step.

    Attributes:
        updated: False if the step was skipped because loss or gradient was not finite.
        loss, gradient_norm: over the window and all ranks; the norm before clipping.
        lr: learning rate of the step.
        stop_requested: True if any rank received a stop signal.
        bad_samples: unreadable samples in this step, over all ranks.
    """

    updated: bool
    loss: float
    gradient_norm: float
    lr: float
    stop_requested: bool
    bad_samples: int


class TrainStep:
    """The optimizer of a run, with its schedule and precision.

    Losses are minimized as the mean over all terms of the window and of all ranks: each batch's
    gradient counts by its number of terms, and the sum is divided once. So the same samples give
    the same step in one batch or in several, on one rank or on many.
    """

    def __init__(
        self, config: RunConfig, strategy: SingleProcess, plan: SchedulePlan, precision: Precision
    ) -> None:
        model = strategy.trained
        self.config = config
        self.strategy = strategy
        self.plan = plan
        self.precision = precision
        self.schedule = registry.get_lr_scheduler_class(config.lr_sched)
        groups = parameter_groups(model, config.weight_decay, config.lr_scale)
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        on_gpu = precision.device.type == "cuda" and strategy.holds_whole_weights
        self.skips_on_device = on_gpu and config.optimizer == "adamw"
        betas = (0.9, config.beta2)
        # Any: the scaler takes what looks like an optimizer of torch
        self.optimizer: Any = build_optimizer(
            config.optimizer, model, groups, config.init_lr, betas, fused=self.skips_on_device
        )

    def run(
        self,
        task: Any,
        window: Sequence[Batch],
        step: int,
        metrics: MetricLog,
        signals: StopSignals,
        bad_samples: int,
    ) -> StepResult:
        """Train on the batches of `window` and update the weights once.

        Args:
            step: number of the step in the schedule; sets the learning rate.
            metrics: receives the reports, unless the step is skipped.
            signals: whether this rank received a stop signal; read after the gradients are computed.
            bad_samples: unreadable samples on this rank.
        """
        lr = self._set_lr(step)
        reports: list[tuple[Mapping[str, Any], Tensor]] = []
        loss_and_weight = torch.zeros(2, device=self.precision.device)
        for number, batch in enumerate(window):
            with self.strategy.gradient_sync(last=number == len(window) - 1):
                loss_and_weight += self._backward(task, batch, reports)
        # a fill, where a copy from the host would wait for the device
        stop = float(signals.received is not None)
        counts = [torch.full_like(loss_and_weight[:1], count) for count in (stop, bad_samples)]
        sums = distributed.sum_over_ranks(torch.cat((loss_and_weight, *counts)))
        sums = torch.cat((sums, self._finish_gradients(sums[1]).reshape(1)))
        loss, gradient_norm, stops, bad, finite = self._update(sums)
        if finite:
            for report, weight in reports:
                metrics.update(report, weight)
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(finite, loss, gradient_norm, lr, stops > 0, int(bad))

    def _backward(self, task: Any, batch: Batch, reports: list[tuple[Mapping[str, Any], Tensor]]) -> Tensor:
        """Add the gradients of a batch and its report; return (2,): loss times weight, and weight."""
        with self.precision.autocast():
            output: StepOutput = task.train_on_batch(self.strategy.module, batch)
        device, weight = self.precision.device, output.weight
        if isinstance(weight, Tensor):
            weight = weight.to(device, torch.float32)
        else:
            weight = torch.full((), float(weight or 0.0), device=device)
        # a mean over nothing is NaN, which must not enter the sum
        loss = torch.where(weight > 0, output.loss.float(), 0.0) * weight
        self.precision.scaler.scale(loss).backward()
        reports.append((output.report, weight))
        return torch.stack((loss.detach(), weight))

    def _set_lr(self, step: int) -> float:
        lr = self.schedule(step, self.plan)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        return lr

    def _finish_gradients(self, total_weight: Tensor) -> Tensor:
        """Turn the sum of gradients into their mean, clip it, and return its norm before clipping."""
        self.precision.scaler.unscale_(self.optimizer)
        # DDP and FSDP2 have divided the sum by the number of ranks.
        factor = distributed.world_size() / total_weight.clamp(min=1.0)
        return self.strategy.finish_gradients(
            self.parameters, factor, largest=self.config.clip_grad_norm or math.inf
        )

    def _update(self, sums: Tensor) -> tuple[float, float, float, float, bool]:
        """Update the weights unless loss or norm is not finite.

        What comes after the step (momentum copies, queues, the state that is saved) depends on whether
        there was one, so the host has to read the sums. Where the optimizer can skip the step by a number
        on the device (a fused one, or a scaler), the step is queued first, and the device works on it
        while the host reads; elsewhere the host reads first and decides.

        Args:
            sums: (5,) loss times weight, weight, stop requests, unreadable samples; gradient norm.

        Returns:
            Loss, gradient norm, stop requests, unreadable samples, and whether loss and norm are finite.
        """
        if self.precision.scales_gradients:
            self.precision.scaler.step(self.optimizer)  # skips by itself
            self.precision.scaler.update()
        elif self.skips_on_device:
            self.optimizer.found_inf = 1.0 - torch.isfinite(sums[0] + sums[4]).float()
            self.optimizer.step()
        loss_sum, weight, stops, bad, gradient_norm = sums.tolist()
        loss = loss_sum / max(weight, 1.0)
        finite = math.isfinite(loss) and math.isfinite(gradient_norm)
        if finite and not (self.precision.scales_gradients or self.skips_on_device):
            self.optimizer.step()
        return loss, gradient_norm, stops, bad, finite

    def group_rates(self) -> dict[str, float]:
        """Return the current learning rate of each part that `lr_scale` names, as "lr/<part>"."""
        rates = {group["lr_scale"]: group["lr"] for group in self.optimizer.param_groups}
        return {f"lr/{part}": rates[scale] for part, scale in self.config.lr_scale.items() if scale in rates}

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.strategy.optimizer_state(self.optimizer),
            "scaler": self.precision.scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load moments and scale; the settings of the groups stay those of the config."""
        self.strategy.load_optimizer_state(self.optimizer, state["optimizer"])
        if state["scaler"]:
            self.precision.scaler.load_state_dict(state["scaler"])
