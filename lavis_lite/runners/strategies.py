"""Strategies of training: one process, a copy on each rank (DDP), parts over the ranks (FSDP2).

The runner, the tasks and the checkpoints know one whole model. A strategy leads from it to what is
trained, and back.
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only

from lavis_lite.common import distributed
from lavis_lite.common.batch import Model
from lavis_lite.common.optim import Optimizer, load_moments, optimizer_parts

# DDP's name for it before torch 2.15, and since.
_SWITCHES = ("broadcast_buffers", "forward_sync_buffers")
_BUFFER_SWITCH = [s for s in _SWITCHES if s in inspect.signature(DistributedDataParallel).parameters][-1]


class SingleProcess:
    """The model as it is: one process trains, or several evaluate.

    Attributes:
        trained: the model whose parameters the optimizer updates.
        module: what to call for the losses.
        holds_whole_weights: False if the parameters are cut over the ranks.
    """

    holds_whole_weights = True

    def __init__(self, model: Model) -> None:
        self.trained = model
        self.module: Any = model

    @contextmanager
    def gradient_sync(self, last: bool) -> Iterator[None]:
        """Let the ranks exchange gradients only with the last batch of a window."""
        yield

    def finish_gradients(self, parameters: list[Tensor], factor: Tensor, largest: float) -> Tensor:
        """Multiply the gradients by `factor`, clip their norm to `largest`, and return the norm before."""
        torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], factor)
        return nn.utils.clip_grad_norm_(parameters, largest)

    @contextmanager
    def whole_model(self) -> Iterator[Model]:
        """Yield the whole model with its current weights, on the device; all ranks enter together."""
        yield self.trained

    def load_whole(self) -> None:
        """Train on with the weights that were loaded into the whole model."""

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimizer's state in whole tensors; all ranks call it."""
        return optimizer.state_dict()

    def load_optimizer_state(self, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
        """Load a state in whole tensors; the settings of the groups stay."""
        load_moments(optimizer, state)


class DDPStrategy(SingleProcess):
    """Every rank holds the whole model and exchanges gradients.

    Args:
        model: on `device`. Its `unused_parameters` tells DDP which weights may lack a gradient.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        super().__init__(model)
        unused = getattr(model, "unused_parameters", "none")
        options: dict[str, Any] = {
            "device_ids": [device.index] if device.type == "cuda" else None,
            "find_unused_parameters": unused == "varying",
            "static_graph": unused == "same",
            _BUFFER_SWITCH: False,  # every rank fills its queues with the same features by itself
        }
        self.module = DistributedDataParallel(model, **options)

    @contextmanager
    def gradient_sync(self, last: bool) -> Iterator[None]:
        """Let the ranks exchange gradients only with the last batch of a window."""
        with nullcontext() if last else self.module.no_sync():
            yield


class FSDPStrategy(SingleProcess):
    """Every rank holds a part of each weight, of its gradient and of its optimizer state.

    The blocks of the vision transformers, where most weights of BLIP are, are gathered one at a time
    when they are needed. The text layers stay gathered during a step, because encoder and decoder
    share them.

    Args:
        model: the whole model. It stays on the CPU between evaluations; a copy is trained.
        device: where to train.
    """

    holds_whole_weights = False

    def __init__(self, model: Model, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        super().__init__(copy.deepcopy(model).to(device))
        self.whole = model.cpu()
        self.device = device
        mesh = init_device_mesh(device.type, (distributed.world_size(),))
        # A single number (the temperature) cannot be cut: each rank holds it.
        self.replicated = [p for p in self.trained.parameters() if p.ndim == 0]
        encoders = [getattr(self.trained, name, None) for name in ("visual_encoder", "visual_encoder_m")]
        for block in (block for encoder in encoders for block in getattr(encoder, "blocks", ())):
            fully_shard(block, mesh=mesh)
        fully_shard(self.trained, mesh=mesh, ignored_params=set(self.replicated))

    @contextmanager
    def gradient_sync(self, last: bool) -> Iterator[None]:
        """Let the ranks exchange gradients only with the last batch of a window."""
        self.trained.set_requires_gradient_sync(last)
        with warnings.catch_warnings():
            # about the similarities in the output, which nobody changes in place
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
            yield

    def finish_gradients(self, parameters: list[Tensor], factor: Tensor, largest: float) -> Tensor:
        """Multiply the gradients by `factor`, clip their norm to `largest`, and return the norm before.

        FSDP2 averages the gradients that it shards, and knows nothing of the parameters it was told to
        ignore: those are averaged here. The norm over all ranks is the root of two sums of squares: of
        the shards, which differ, summed over the ranks; and of the replicated gradients, which are equal
        on all ranks, counted once. `clip_grad_norm_` cannot mix the two.
        """
        for parameter in self.replicated:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= distributed.world_size()
        replicated = {id(parameter) for parameter in self.replicated}
        gradients = [(id(p) in replicated, p.grad) for p in parameters if p.grad is not None]
        equal = [gradient for is_replicated, gradient in gradients if is_replicated]
        shards = [
            distributed.local_part(gradient) for is_replicated, gradient in gradients if not is_replicated
        ]
        torch._foreach_mul_(equal + shards, factor)
        squares = distributed.sum_over_ranks(_sum_of_squares(shards, self.device))
        norm = (squares + _sum_of_squares(equal, self.device)).sqrt()
        if math.isfinite(largest):
            torch._foreach_mul_(equal + shards, (largest / (norm + 1e-6)).clamp(max=1.0))
        return norm

    @contextmanager
    def whole_model(self) -> Iterator[Model]:
        """Yield the whole model with its current weights, on the device; all ranks enter together."""
        whole = self.whole.state_dict()
        with torch.no_grad():
            for name, value in self.trained.state_dict().items():
                whole[name].copy_(distributed.whole_tensor(value))
        self.whole.to(self.device)
        try:
            yield self.whole
        finally:
            self.whole.cpu()

    @torch.no_grad()
    def load_whole(self) -> None:
        """Train on with the weights that were loaded into the whole model."""
        whole = self.whole.state_dict()
        for name, value in self.trained.state_dict().items():
            value.copy_(distributed.part_like(whole[name], value))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the optimizer's state in whole tensors; all ranks call it."""
        return tree_map_only(Tensor, distributed.whole_tensor, optimizer.state_dict())

    def load_optimizer_state(self, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
        """Load this rank's part of a state in whole tensors; the settings of the groups stay."""
        parts = []
        for part, saved in zip(optimizer_parts(optimizer), state.get("parts", [state]), strict=True):
            parameters = [p for group in part.param_groups for p in group["params"]]
            cut = {
                index: {name: _cut_like(value, parameters[index]) for name, value in values.items()}
                for index, values in saved["state"].items()
            }
            parts.append({**saved, "state": cut})
        load_moments(optimizer, {"parts": parts})


def make_strategy(parallel: str, model: Model, device: torch.device) -> SingleProcess:
    """Return the strategy for `parallel`, "ddp" or "fsdp", and the number of processes."""
    if distributed.world_size() == 1:
        return SingleProcess(model.to(device))
    if parallel == "fsdp":
        return FSDPStrategy(model, device)
    return DDPStrategy(model.to(device), device)


def _sum_of_squares(tensors: list[Tensor], device: torch.device) -> Tensor:
    if not tensors:
        return torch.zeros((), device=device)
    return torch.stack(torch._foreach_norm(tensors)).square().sum()


def _cut_like(value: Any, parameter: Tensor) -> Any:
    """Return this rank's part of a state tensor that has the parameter's shape; others unchanged."""
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return distributed.part_like(value, parameter)
    return value
