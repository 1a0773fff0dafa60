"""`Batch`, which loaders yield, and `StepOutput`, which a task returns for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

# A registered model. Tasks and runners cannot import `BaseModel` (tests/test_layering.py), and `nn.Module`
# does not have its methods.
Model = Any
# The samples of a filler batch have this key, and no others do: a model that shares features among the
# ranks must leave them out.
FILLER = "filler"


@dataclass(frozen=True, order=True)
class BadSample:
    """A sample that could not be read.

    Attributes:
        index: number of the sample in its data set.
        reason: the error in one line.
    """

    index: int
    reason: str


class Position(NamedTuple):
    """Position of a batch in the run.

    Attributes:
        epoch: number of the epoch, from 0.
        batch: number of the batch in its epoch, from 0.
        batches: batches of one epoch.
    """

    epoch: int
    batch: int
    batches: int


@dataclass
class Batch:
    """Samples for one forward pass.

    Attributes:
        samples: what the model reads: the keys of the data set. Empty if no sample could be read.
        bad_samples: samples that could not be read.
        filler: True if this rank has no samples left and only has to take part in the exchange of
            gradients: the samples are real, but their loss counts nothing.
        position: set by the runner.
    """

    samples: dict[str, Any]
    bad_samples: list[BadSample] = field(default_factory=list)
    filler: bool = False
    position: Position | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on `device`."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch with its tensors in pinned memory; `DataLoader(pin_memory=True)` calls it."""
        return self._mapped(Tensor.pin_memory)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        samples = {
            key: change(value) if isinstance(value, Tensor) else value for key, value in self.samples.items()
        }
        return replace(self, samples=samples)


@dataclass
class StepOutput:
    """The loss of a training step, and numbers for the log.

    Attributes:
        loss: a mean over `weight` terms.
        report: numbers for the log, left on the device: the parts of the loss, and what is not
            minimized (a temperature, how full a queue is).
        weight: number of terms (tokens, pairs), so that a window of batches, or the shares of several
            ranks, minimize the mean over all their terms; None for the number of samples.
    """

    loss: Tensor
    report: Mapping[str, Tensor | float] = field(default_factory=dict)
    weight: Tensor | float | None = None
