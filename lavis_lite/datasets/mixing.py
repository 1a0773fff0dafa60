"""Several data sets in one run, files and shards alike: each after the other's batches, or by ratio.

A batch comes from one data set, the same one on every rank. Which, is a function of (seed, epoch,
batch), so a run can be entered anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch

from lavis_lite.common.batch import Batch
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import suggest
from lavis_lite.common.seeding import keyed_generator
from lavis_lite.datasets.loading import Concatenated, TrainLoader


class Loader(Protocol):
    """What gives training batches."""

    @property
    def batches_per_epoch(self) -> int: ...

    @property
    def layout(self) -> dict[str, Any]: ...

    def batches_after(self, skipped: int) -> int: ...

    def epoch(self, epoch: int, first_batch: int = 0, skipped: int = 0) -> Iterator[Batch]: ...


def train_loader(
    datasets: Sequence[Any],
    batch_size: int,
    *,
    seed: int,
    ratios: Mapping[str, float] | None = None,
    **settings: Any,
) -> Loader:
    """Return the loader of one or several data sets.

    Without ratios, all samples of all data sets are seen once an epoch; data sets of files are joined
    sample by sample. With ratios, each batch comes from a data set drawn by its weight, and an epoch
    has as many batches as all of them together.

    Args:
        batch_size: samples a batch on this rank.
        ratios: `name` of a data set -> weight.
        settings: of `TrainLoader` (rank, world_size, num_workers, drop_last, policy, pin_memory, finish).

    Raises:
        ConfigError: no data set, or ratios that name another, leave one out, or are not above 0.
    """
    if not datasets:
        raise ConfigError("run.train_splits: no data set has any of these splits.")
    if ratios:
        loaders = [_loader(dataset, batch_size, seed=seed, **settings) for dataset in datasets]
        return MixedLoader(loaders, seed=seed, weights=_weights(datasets, ratios))
    files = [dataset for dataset in datasets if not hasattr(dataset, "shards")]
    joined = [files[0] if len(files) == 1 else Concatenated(files)] if files else []
    sources = [*joined, *(dataset for dataset in datasets if hasattr(dataset, "shards"))]
    loaders = [_loader(dataset, batch_size, seed=seed, **settings) for dataset in sources]
    return loaders[0] if len(loaders) == 1 else MixedLoader(loaders, seed=seed)


def _loader(dataset: Any, batch_size: int, **settings: Any) -> Loader:
    if hasattr(dataset, "shards"):
        from lavis_lite.datasets.web.loader import WebTrainLoader

        return WebTrainLoader(dataset, batch_size, **settings)
    return TrainLoader(dataset, batch_size, **settings)


def _weights(datasets: Sequence[Any], ratios: Mapping[str, float]) -> list[float]:
    names = [getattr(dataset, "name", "") for dataset in datasets]
    for name, weight in ratios.items():
        if name not in names:
            raise ConfigError(
                f"run.train_dataset_ratios.{name}: no data set of this run.{suggest(name, names)}"
            )
        if not weight > 0:
            raise ConfigError(f"run.train_dataset_ratios.{name}: must be above 0, found {weight!r}.")
    left_out = [name for name in names if name not in ratios]
    if left_out:
        raise ConfigError(f"run.train_dataset_ratios: has no weight for {', '.join(left_out)}.")
    return [float(ratios[name]) for name in names]


class MixedLoader:
    """Batches of several loaders, in an order drawn anew for each epoch.

    Args:
        weights: how often each is drawn; None to take every batch of each once an epoch.
    """

    def __init__(
        self, loaders: Sequence[Loader], *, seed: int, weights: Sequence[float] | None = None
    ) -> None:
        self.loaders = list(loaders)
        self.seed = seed
        self.weights = weights

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch: those of all loaders together."""
        return sum(loader.batches_per_epoch for loader in self.loaders)

    @property
    def layout(self) -> dict[str, Any]:
        """What must be equal for a batch's number to mean the same place in the data."""
        parts = [loader.layout for loader in self.loaders]
        return {"samples": sum(part["samples"] for part in parts), "parts": parts}

    def batches_after(self, skipped: int) -> int:
        """Return how many batches an epoch has; no samples can be skipped."""
        if skipped:
            raise ValueError("the samples of a mixture cannot be skipped")
        return self.batches_per_epoch

    def epoch(self, epoch: int, first_batch: int = 0, skipped: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from `first_batch` on; each loader goes on where it stood."""
        taken = torch.zeros(len(self.loaders), dtype=torch.long)
        for earlier in range(epoch):
            taken += self._order(earlier).bincount(minlength=len(self.loaders))
        order = self._order(epoch)
        taken += order[:first_batch].bincount(minlength=len(self.loaders))
        streams = [
            _endless(loader, int(count)) for loader, count in zip(self.loaders, taken.tolist(), strict=True)
        ]
        for source in order[first_batch:].tolist():
            yield next(streams[source])

    def _order(self, epoch: int) -> torch.Tensor:
        """Return the number of the loader of each batch."""
        generator = keyed_generator("mixture", self.seed, epoch)
        if self.weights is not None:
            weights = torch.tensor(self.weights, dtype=torch.double)
            return torch.multinomial(weights, self.batches_per_epoch, replacement=True, generator=generator)
        sources = [
            number for number, loader in enumerate(self.loaders) for _ in range(loader.batches_per_epoch)
        ]
        return torch.tensor(sources)[torch.randperm(len(sources), generator=generator)]


def _endless(loader: Loader, taken: int) -> Iterator[Batch]:
    """Yield a loader's batches from its `taken`th on, epoch after epoch."""
    epoch, first_batch = divmod(taken, loader.batches_per_epoch)
    while True:
        yield from loader.epoch(epoch, first_batch)
        epoch, first_batch = epoch + 1, 0
