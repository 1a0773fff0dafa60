"""Optimizers, parameter groups, and learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.registry import registry, suggest


@dataclass(frozen=True)
class SchedulePlan:
    """The parameters of a schedule. Steps are optimizer steps."""

    init_lr: float
    min_lr: float
    warmup_lr: float
    warmup_steps: int
    decay_rate: float
    steps_per_epoch: int
    total_steps: int

    @classmethod
    def of(cls, config: RunConfig, steps_per_epoch: int, total_steps: int) -> SchedulePlan:
        """Return the plan of a ``run`` section."""
        return cls(
            init_lr=config.init_lr,
            min_lr=config.min_lr,
            warmup_lr=config.init_lr / 100 if config.warmup_lr is None else config.warmup_lr,
            warmup_steps=config.warmup_steps,
            decay_rate=config.lr_decay_rate,
            steps_per_epoch=steps_per_epoch,
            total_steps=total_steps,
        )


Schedule = Callable[[int, SchedulePlan], float]


def _warmup(step: int, plan: SchedulePlan) -> float | None:
    """Return the rate of a linear warm-up from `warmup_lr` to `init_lr`, or None when it is over."""
    if step >= plan.warmup_steps:
        return None
    return plan.warmup_lr + (plan.init_lr - plan.warmup_lr) * step / plan.warmup_steps


@registry.register_lr_scheduler("linear_warmup_cosine_lr")
def linear_warmup_cosine_lr(step: int, plan: SchedulePlan) -> float:
    """Warm up, then follow half a cosine down to `min_lr` at the last step."""
    warmup = _warmup(step, plan)
    if warmup is not None:
        return warmup
    progress = (step - plan.warmup_steps) / max(1, plan.total_steps - plan.warmup_steps)
    return plan.min_lr + (plan.init_lr - plan.min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@registry.register_lr_scheduler("linear_warmup_step_lr")
def linear_warmup_step_lr(step: int, plan: SchedulePlan) -> float:
    """Warm up, then multiply by `decay_rate` after each epoch, never below `min_lr`."""
    warmup = _warmup(step, plan)
    if warmup is not None:
        return warmup
    return max(plan.min_lr, plan.init_lr * plan.decay_rate ** (step // plan.steps_per_epoch))


@registry.register_lr_scheduler("constant_lr")
def constant_lr(step: int, plan: SchedulePlan) -> float:
    """Warm up, then stay at `init_lr`."""
    warmup = _warmup(step, plan)
    return plan.init_lr if warmup is None else warmup


def parameter_groups(
    model: nn.Module, weight_decay: float, lr_scale: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return optimizer groups of the trainable parameters, by decay and by learning-rate factor.

    Vectors and scalars (biases, norms, temperatures) do not decay.

    Args:
        lr_scale: part of the model -> factor on its learning rate; the longest matching part counts.

    Raises:
        ValueError: `lr_scale` names a part that the model does not have.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for part in lr_scale:
        if not any(name == part or name.startswith(part + ".") for name, _ in model.named_parameters()):
            parts = [name for name, _ in model.named_children()]
            raise ValueError(f"run.lr_scale: the model has no part {part!r}.{suggest(part, parts)}")
    # By whether they decay, not by how much: so the groups stay the same when `weight_decay` changes.
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in named:
        matching = [part for part in lr_scale if name == part or name.startswith(part + ".")]
        scale = lr_scale[max(matching, key=len)] if matching else 1.0
        decays = parameter.ndim >= 2 and not name.endswith("bias")
        settings = {"params": [], "weight_decay": weight_decay if decays else 0.0, "lr_scale": scale}
        group = groups.setdefault((scale, decays), settings)
        group["params"].append(parameter)
    if not groups:
        raise ValueError("run.freeze leaves nothing to train; unfreeze a part of the model.")
    return list(groups.values())


class MuonWithAdamW:
    """Muon for the weights of linear layers, AdamW for all other parameters, as one optimizer.

    Muon's update of a matrix is orthogonal, with which a model that starts from random weights learns
    much more in the same number of steps. It is scaled to the size of AdamW's, so that one learning rate
    serves both.

    Args:
        model: whose parameters `groups` holds.
        groups: from `parameter_groups`.
    """

    def __init__(
        self, model: nn.Module, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]
    ) -> None:
        linear = {id(part.weight) for part in model.modules() if isinstance(part, nn.Linear)}
        # The language-model head is the embedding matrix, whose rows are words.
        linear -= {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
        matrices: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        for group in groups:
            for part, is_linear in ((matrices, True), (others, False)):
                parameters = [p for p in group["params"] if (id(p) in linear) == is_linear]
                if parameters:
                    part.append({**group, "params": parameters})
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            self.parts.append(torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw"))
        if others:
            self.parts.append(torch.optim.AdamW(others, lr=lr, betas=betas, foreach=True))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both optimizers."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """Update the weights."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        load_moments(self, state)


Optimizer = torch.optim.Optimizer | MuonWithAdamW


def build_optimizer(
    name: Literal["adamw", "muon"],
    model: nn.Module,
    groups: list[dict[str, Any]],
    lr: float,
    betas: tuple[float, float],
    fused: bool = False,
) -> Optimizer:
    """Return the optimizer of `groups`, which are parameters of `model`.

    Args:
        fused: let AdamW update all weights in one kernel, which can skip a step by a number on the device.
    """
    if name == "muon":
        return MuonWithAdamW(model, groups, lr, betas)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, foreach=not fused, fused=fused)


def optimizer_parts(optimizer: Optimizer) -> list[torch.optim.Optimizer]:
    """Return the torch optimizers that `optimizer` consists of."""
    return optimizer.parts if isinstance(optimizer, MuonWithAdamW) else [optimizer]


def load_moments(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load the state of all parameters; the settings of the groups (decay, betas, fused) stay."""
    for part, saved in zip(optimizer_parts(optimizer), state.get("parts", [state]), strict=True):
        pairs = zip(part.param_groups, saved["param_groups"], strict=False)
        groups = [{**current, "params": group["params"]} for current, group in pairs]
        part.load_state_dict({**saved, "param_groups": groups})
