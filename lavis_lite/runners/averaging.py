"""A running average of the weights, which often evaluates better than the last weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lavis_lite.common import distributed


class WeightAverage:
    """The exponential moving average of the trainable weights: what is validated, tested and saved as best.

    After step n the average moves by 1 - min(decay, (1 + n) / (10 + n)), so that the untrained
    weights at the start lose their influence early.

    Args:
        model: the model that is trained; its weights may be cut over the ranks.
        decay: share of the average that stays at a step, below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.restart()

    def restart(self) -> None:
        """Begin with the current weights."""
        self.averages = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the current weights, after `step` optimizer steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(_local(self.averages), _local(self.parameters), 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Swap the weights with their averages during a block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for average, parameter in zip(_local(self.averages), _local(self.parameters), strict=True):
            weights = parameter.clone()
            parameter.copy_(average)
            average.copy_(weights)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages as whole tensors; all ranks call it."""
        return {name: distributed.whole_tensor(value) for name, value in self.averages.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load averages in whole tensors, which every rank has."""
        for name, average in self.averages.items():
            average.copy_(distributed.part_like(state[name], average))


def _local(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    return [distributed.local_part(tensor.detach()) for tensor in tensors.values()]
