"""Several data sets in one run, in files or shards: all batches of each once an epoch, or by ratio.

A batch comes from one data set, the same one on every rank. The data set is a function of (seed, epoch,
batch), so that a run can be resumed at any batch.
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
    """A source of training batches: `TrainLoader`, `WebTrainLoader` or `MixedLoader`."""

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

    Without ratios, all samples of all data sets are seen once an epoch; data sets of files are
    concatenated. With ratios, each batch comes from a data set drawn by its weight, and an epoch has as
    many batches as all data sets together.

    Args:
        batch_size: samples per batch on this rank.
        ratios: `name` of a data set -> weight.
        settings: of `TrainLoader` (rank, world_size, num_workers, drop_last, policy, pin_memory, finish).

    Raises:
        ConfigError: no data set, or ratios that name an unknown one, omit one, or are not above 0.
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
    omitted = [name for name in names if name not in ratios]
    if omitted:
        raise ConfigError(f"run.train_dataset_ratios: has no weight for {', '.join(omitted)}.")
    return [float(ratios[name]) for name in names]


class MixedLoader:
    """Batches of several loaders, in a random order for each epoch.

    Batch b of epoch e comes from the loader `order(e)[b]`. Each loader has its own epochs: it is one endless
    stream, and a batch of it is drawn whenever the order names it. So to enter epoch e at batch b, count how
    often each loader was named before, in all earlier epochs and in this one; that count, divided by the
    loader's batches per epoch, is its own epoch and batch to start from.

    Args:
        weights: how often each loader is drawn; None to take every batch of each once an epoch.
    """

    def __init__(
        self, loaders: Sequence[Loader], *, seed: int, weights: Sequence[float] | None = None
    ) -> None:
        self.loaders = list(loaders)
        self.seed = seed
        self.weights = weights

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch: the sum over all loaders."""
        return sum(loader.batches_per_epoch for loader in self.loaders)

    @property
    def layout(self) -> dict[str, Any]:
        """The settings that must be equal for the number of a batch to mean the same position in the data."""
        parts = [loader.layout for loader in self.loaders]
        return {"samples": sum(part["samples"] for part in parts), "parts": parts}

    def batches_after(self, skipped: int) -> int:
        """Return the number of batches of an epoch; no samples can be skipped."""
        if skipped:
            raise ValueError("the samples of a mixture cannot be skipped")
        return self.batches_per_epoch

    def epoch(self, epoch: int, first_batch: int = 0, skipped: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from `first_batch` on."""
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
        """Return the number of the loader of each batch of an epoch."""
        generator = keyed_generator("mixture", self.seed, epoch)
        if self.weights is not None:
            weights = torch.tensor(self.weights, dtype=torch.double)
            return torch.multinomial(weights, self.batches_per_epoch, replacement=True, generator=generator)
        sources = [
            number for number, loader in enumerate(self.loaders) for _ in range(loader.batches_per_epoch)
        ]
        return torch.tensor(sources)[torch.randperm(len(sources), generator=generator)]


def _endless(loader: Loader, taken: int) -> Iterator[Batch]:
    """Yield the batches of a loader, epoch after epoch, without the first `taken`."""
    epoch, first_batch = divmod(taken, loader.batches_per_epoch)
    while True:
        yield from loader.epoch(epoch, first_batch)
        epoch, first_batch = epoch + 1, 0
