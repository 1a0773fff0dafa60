"""Running means that stay on the device until they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

CPU = torch.device("cpu")


class MetricLog:
    """Weighted means of named values, summed where the values lie.

    `update` queues work on the device and returns; only `compute` and `state_dict` wait for it.

    >>> log = MetricLog()
    >>> log.update({"loss": torch.tensor(1.0)}, weight=3)
    >>> log.update({"loss": torch.tensor(5.0), "lr": 0.1})
    >>> log.compute()
    {'loss': 2.0, 'lr': 0.1}
    """

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}  # name -> (2,): sum of weight * value, sum of weights

    def update(self, values: Mapping[str, Tensor | float], weight: Tensor | float = 1.0) -> None:
        """Add one observation of each of `values`.

        A weight of 0 adds nothing, even where the value is NaN (a mean over no tokens).

        Args:
            values: numbers or tensors of one element.
            weight: of each value, such as the number of samples or of tokens; not negative.

        Raises:
            ValueError: a tensor with more or less than one element.
        """
        for name, value in values.items():
            device = _common_device(value, weight)
            value_here, weight_here = _scalar(name, value, device), _scalar("weight", weight, device)
            weighted = torch.where(weight_here == 0, 0.0, value_here * weight_here)
            observation = torch.stack((weighted, weight_here))
            self._totals[name] = (
                _add(self._totals[name], observation) if name in self._totals else observation
            )

    def compute(
        self, reduce: Callable[[Tensor], Tensor] | None = None, names: Iterable[str] = ()
    ) -> dict[str, float]:
        """Return the mean of each name, sorted by name, in one transfer from the device.

        A name whose weights sum to 0 has no mean and is left out.

        Args:
            reduce: sum over ranks of one tensor of shape (names, 2). All ranks must hold the same names.
            names: names to reduce even if this rank has not seen them, as one without a batch.
        """
        ordered = sorted({*self._totals, *names})
        if not ordered:
            return {}
        device = _common_device(*self._totals.values())
        nothing = torch.zeros(2, dtype=_precision(device), device=device)
        stacked = torch.stack([_move(self._totals.get(name, nothing), device) for name in ordered])
        if reduce is not None:
            stacked = reduce(stacked)
        pairs = zip(ordered, stacked.tolist(), strict=True)
        return {name: total / weight for name, (total, weight) in pairs if weight != 0}

    def reset(self) -> None:
        """Remove all observations."""
        self._totals.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the exact sums and weights, on the CPU: name -> (2,)."""
        return {name: total.to(CPU, copy=True) for name, total in self._totals.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned; the next update moves it to its device.

        Raises:
            ValueError: an entry that is not a pair of sum and weight.
        """
        for name, total in state.items():
            if not isinstance(total, Tensor) or total.shape != (2,):
                raise ValueError(
                    f"Metric log state {name!r}: expected a tensor of a sum and a weight, found {total!r}. "
                    "Load what MetricLog.state_dict() returned."
                )
        self._totals = {name: total.detach().clone() for name, total in state.items()}


def _common_device(*values: Tensor | float) -> torch.device:
    """Return the accelerator that one of `values` is on, or else the CPU."""
    devices = (value.device for value in values if isinstance(value, Tensor))
    return next((device for device in devices if device.type != "cpu"), CPU)


def _precision(device: torch.device) -> torch.dtype:
    return torch.float64 if device.type in ("cpu", "cuda") else torch.float32


def _scalar(name: str, value: Tensor | float, device: torch.device) -> Tensor:
    if not isinstance(value, Tensor):
        # a fill runs on the device in turn; copying the number there would wait for the device
        return torch.full((), value, dtype=_precision(device), device=device)
    if value.numel() != 1:
        raise ValueError(
            f"Metric {name!r} has shape {tuple(value.shape)}; log one number a name, such as its mean()."
        )
    return _move(value.detach().reshape(()), device)


def _move(value: Tensor, device: torch.device) -> Tensor:
    return value.to(device, dtype=_precision(device), non_blocking=True)


def _add(total: Tensor, observation: Tensor) -> Tensor:
    device = _common_device(total, observation)
    return _move(total, device) + _move(observation, device)
