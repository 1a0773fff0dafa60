"""One optimizer step over a window of batches, whatever the precision and however many ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lavis_lite.common import distributed
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.distributed import FILLER
from lavis_lite.common.logs.metrics import MetricLog
from lavis_lite.common.optim import SchedulePlan, build_optimizer, parameter_groups
from lavis_lite.common.registry import registry
from lavis_lite.runners.parallel import SingleProcess
from lavis_lite.runners.precision import Precision


@dataclass
class StepResult:
    """What came of a step.

    Attributes:
        updated: False where it was left out.
        stop_requested: any rank was asked to stop.
        bad_samples: unreadable samples that the ranks met in this step, those met before left out.
    """

    updated: bool
    loss: float
    gradient_norm: float
    lr: float
    stop_requested: bool
    bad_samples: int


class TrainStep:
    """The optimizer of a run, with its schedule and precision.

    Losses are minimised as the mean over all terms of the window and of all ranks: each batch's
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
        betas = (0.9, config.beta2)
        self.optimizer = build_optimizer(config.optimizer, model, groups, config.init_lr, betas)

    def step(
        self,
        task: Any,
        window: Sequence[Mapping[str, Any]],
        step: int,
        metrics: MetricLog,
        stop: Callable[[], bool],
        bad_samples: int,
    ) -> StepResult:
        """Train on the batches of `window` and update the weights once.

        Args:
            step: optimizer steps done before; sets the learning rate.
            metrics: where the reports go, unless the step is left out.
            stop: tells, after the gradients, whether this rank was asked to stop; the result says whether
                any was.
            bad_samples: unreadable samples that this rank met; the result has the sum over the ranks.
        """
        lr = self._set_lr(step)
        reports: list[tuple[Mapping[str, Tensor], Tensor]] = []
        # loss times weight, weight, stop requests, unreadable samples
        sums = torch.zeros(4, device=self.precision.device)
        sums[3] = float(bad_samples)
        for index, samples in enumerate(window):
            with self.strategy.gradient_sync(last=index == len(window) - 1):
                with self.precision.autocast():
                    result = task.train_step(self.strategy.module, samples)
                weight = torch.as_tensor(result.weight, dtype=torch.float32, device=sums.device)
                weight = weight * (not samples.get(FILLER, False))
                # an empty share must not turn NaN (a mean over nothing) into the sum
                loss = torch.where(weight > 0, result.loss.float(), 0.0) * weight
                self.precision.scaler.scale(loss).backward()
            sums[:2] += torch.stack((loss.detach(), weight))
            reports.append((result.report, weight))
        sums[2] = float(stop())
        sums = distributed.sum_over_ranks(sums)
        gradient_norm = self._finish_gradients(sums[1])
        loss_sum, weight_sum, stops, bad, norm = [*sums.tolist(), float(gradient_norm)]
        loss = loss_sum / max(weight_sum, 1.0)
        updated = self._update(finite=math.isfinite(loss) and math.isfinite(norm))
        if updated:
            for report, weight in reports:
                metrics.update(report, weight)
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(updated, loss, norm, lr, stop_requested=stops > 0, bad_samples=int(bad))

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

    def _update(self, finite: bool) -> bool:
        """Step, unless loss or gradient is not finite; tell whether it was done."""
        if not finite and not self.precision.scales_gradients:
            return False
        self.precision.scaler.step(self.optimizer)  # leaves infinite gradients out by itself
        self.precision.scaler.update()
        return finite

    def group_rates(self) -> dict[str, float]:
        """Return the present learning rate of each part that `lr_scale` names, as "lr/<part>"."""
        factors = {group["lr_scale"]: group["lr"] for group in self.optimizer.param_groups}
        return {
            f"lr/{part}": factors[scale] for part, scale in self.config.lr_scale.items() if scale in factors
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.strategy.optimizer_state(self.optimizer),
            "scaler": self.precision.scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take moments and scale; decay, betas and factors of the groups stay those of the config."""
        settings = [
            {name: value for name, value in group.items() if name != "params"}
            for group in self.optimizer.param_groups
        ]
        self.strategy.load_optimizer_state(self.optimizer, state["optimizer"])
        for group, own in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(own)
        if state["scaler"]:
            self.precision.scaler.load_state_dict(state["scaler"])
