"""How the ranks share a model: a whole copy on each (DDP), or a part of every weight on each (FSDP2).

The runner, the tasks and the checkpoints know one whole model. Both ways here lead from it to what
is trained, and back.
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lavis_lite.common import distributed
from lavis_lite.common.optim import optimizer_parts

# Its name before torch 2.15, and since.
_SWITCHES = ("broadcast_buffers", "forward_sync_buffers")
_BUFFER_SWITCH = [s for s in _SWITCHES if s in inspect.signature(DistributedDataParallel).parameters][-1]


class SingleProcess:
    """One process trains, or several evaluate: the model as it is.

    Attributes:
        trained: the model whose parameters the optimizer moves.
        module: what to call for the losses.
    """

    def __init__(self, model: nn.Module) -> None:
        self.trained: nn.Module = model
        self.module: nn.Module = model

    @contextmanager
    def gradient_sync(self, last: bool) -> Iterator[None]:
        """Let the ranks exchange gradients only with the last batch of a window."""
        yield

    def finish_gradients(self, parameters: list[Tensor], factor: Tensor, largest: float) -> Tensor:
        """Multiply the gradients by `factor`, clip their norm to `largest`, and return it as it was."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, factor)
        return nn.utils.clip_grad_norm_(parameters, largest)

    @contextmanager
    def whole_model(self) -> Iterator[nn.Module]:
        """Give the whole model with its present weights, on the device; all ranks enter together."""
        yield self.trained

    def load_whole(self) -> None:
        """Take the weights that were loaded into the whole model."""

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return the optimizer's state in whole tensors; all ranks call it."""
        return optimizer.state_dict()

    def load_optimizer_state(self, optimizer: Any, state: dict[str, Any]) -> None:
        """Take a state in whole tensors."""
        optimizer.load_state_dict(state)


class DDPStrategy(SingleProcess):
    """Every rank holds the whole model and exchanges gradients (DDP).

    Args:
        model: on `device`. Its `unused_parameters` says what DDP has to reckon with.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__(model)
        unused = getattr(model, "unused_parameters", "none")
        self.module = DistributedDataParallel(
            model,
            device_ids=[device.index] if device.type == "cuda" else None,
            **{_BUFFER_SWITCH: False},  # every rank fills its queues alike by itself
            find_unused_parameters=unused == "varying",
            static_graph=unused == "same",
        )

    @contextmanager
    def gradient_sync(self, last: bool) -> Iterator[None]:
        """Let the ranks exchange gradients only with the last batch of a window."""
        with nullcontext() if last else self.module.no_sync():
            yield


class FSDPStrategy(SingleProcess):
    """Every rank holds a part of each weight, of its gradient and of its optimizer state (FSDP2).

    The blocks of the vision transformers, where most weights of BLIP are, are put together one at a
    time when they are needed. The text layers stay together during a step, because encoder and
    decoder share them.

    Args:
        model: the whole model. It stays on the CPU between evaluations; a copy is trained.
        device: where to train.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        super().__init__(copy.deepcopy(model).to(device))
        self.whole = model.cpu()
        self.device = device
        mesh = init_device_mesh(device.type, (distributed.world_size(),))
        # A single number (the temperature) cannot be cut; each rank holds it.
        self.replicated = [p for p in self.trained.parameters() if p.ndim == 0]
        for block in _vision_blocks(self.trained):
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
        """Multiply the gradients by `factor`, clip their norm to `largest`, and return it as it was."""
        for parameter in self.replicated:
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= distributed.world_size()
        replicated = {id(parameter) for parameter in self.replicated}
        common = [p.grad for p in parameters if p.grad is not None and id(p) in replicated]
        shards = [
            distributed.local_part(p.grad)
            for p in parameters
            if p.grad is not None and id(p) not in replicated
        ]
        torch._foreach_mul_(common + shards, factor)
        squares = distributed.sum_over_ranks(_sum_of_squares(shards, self.device))
        norm = (squares + _sum_of_squares(common, self.device)).sqrt()
        if math.isfinite(largest):
            torch._foreach_mul_(common + shards, (largest / (norm + 1e-6)).clamp(max=1.0))
        return norm

    @contextmanager
    def whole_model(self) -> Iterator[nn.Module]:
        """Give the whole model with its present weights, on the device; all ranks enter together."""
        trained = self.trained.state_dict()
        whole = self.whole.state_dict()
        with torch.no_grad():
            for name, value in trained.items():
                whole[name].copy_(distributed.whole_tensor(value))
        self.whole.to(self.device)
        try:
            yield self.whole
        finally:
            self.whole.cpu()

    @torch.no_grad()
    def load_whole(self) -> None:
        """Take the weights that were loaded into the whole model."""
        whole = self.whole.state_dict()
        for name, value in self.trained.state_dict().items():
            value.copy_(distributed.part_like(whole[name], value))

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Return the optimizer's state in whole tensors; all ranks call it."""
        return _map_tensors(optimizer.state_dict(), distributed.whole_tensor)

    def load_optimizer_state(self, optimizer: Any, state: dict[str, Any]) -> None:
        """Take a state in whole tensors."""
        states = state.get("parts", [state])
        for part, part_state in zip(optimizer_parts(optimizer), states, strict=True):
            parameters = [p for group in part.param_groups for p in group["params"]]
            cut = {
                index: {name: _cut_like(value, parameters[index]) for name, value in values.items()}
                for index, values in part_state["state"].items()
            }
            part.load_state_dict({**part_state, "state": cut})


def make_strategy(parallel: str, model: nn.Module, device: torch.device) -> SingleProcess:
    """Return how the ranks share `model`: `parallel` is "ddp" or "fsdp"; one process shares nothing."""
    if distributed.world_size() == 1:
        return SingleProcess(model.to(device))
    if parallel == "fsdp":
        return FSDPStrategy(model, device)
    return DDPStrategy(model.to(device), device)


def _vision_blocks(model: nn.Module) -> list[nn.Module]:
    encoders = [getattr(model, name, None) for name in ("visual_encoder", "visual_encoder_m")]
    return [block for encoder in encoders for block in getattr(encoder, "blocks", ())]


def _sum_of_squares(tensors: list[Tensor], device: torch.device) -> Tensor:
    if not tensors:
        return torch.zeros((), device=device)
    return torch.stack(torch._foreach_norm(tensors)).square().sum()


def _map_tensors(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {key: _map_tensors(value, change) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_map_tensors(value, change) for value in tree)
    return tree


def _cut_like(value: Any, parameter: Tensor) -> Any:
    """Return this rank's part of a state tensor that has the parameter's shape; others as they are."""
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return distributed.part_like(value, parameter)
    return value
