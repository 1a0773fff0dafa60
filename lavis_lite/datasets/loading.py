"""From data sets to batches: which rank reads which sample in which order, and what happens to bad samples.

The order of an epoch depends on (seed, epoch) alone; a global batch is a slice of it, cut into equal
shares for the ranks. The augmentation of a sample depends on (seed, epoch, sample). So neither workers,
nor ranks, nor a resumed run change what is trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from lavis_lite.common.batch import BadSample, Batch
from lavis_lite.common.distributed import leave_signals_to_parent, start_workers
from lavis_lite.common.seeding import key_seed, keyed_generator, seeded_scope
from lavis_lite.datasets.base_dataset import collate

# Raised on reading a bad file: OSError by Pillow; ValueError covers `ImageError`.
READ_ERRORS = (OSError, ValueError)
ATTEMPTS = 20

Policy = Literal["raise", "replace", "skip"]
Collater = Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]
Finish = Callable[[dict[str, Any]], dict[str, Any]]


class Samples(Protocol):
    """A data set of torch with a length."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class SampleKey:
    """A sample of an epoch."""

    epoch: int
    index: int


@dataclass
class KeyedSamples(Dataset):
    """A data set indexed by `SampleKey`, with a policy for samples that cannot be read.

    Attributes:
        policy: for samples that cannot be read: "raise" raises; "replace" returns another sample, always
            the same one; "skip" returns only the error.
    """

    dataset: Samples
    seed: int
    policy: Policy

    def __getitem__(self, key: SampleKey) -> tuple[Any, list[BadSample]]:
        """Return the sample (None if skipped) and the samples that could not be read."""
        bad: list[BadSample] = []
        index = key.index
        for attempt in range(ATTEMPTS):
            try:
                with seeded_scope(self.seed, key.epoch, index):
                    return self.dataset[index], bad
            except READ_ERRORS as error:
                if self.policy == "raise":
                    raise
                bad.append(BadSample(index, f"{type(error).__name__}: {error}"))
                if self.policy == "skip":
                    return None, bad
                index = key_seed("replacement", self.seed, key.index, attempt) % len(self.dataset)
        raise ValueError(f"{ATTEMPTS} samples in a row cannot be read; the last one: {bad[-1].reason}")


@dataclass
class Collate:
    """Make a `Batch` of what `KeyedSamples` returns.

    Attributes:
        collater: of the data set: samples -> a plain dict.
        finish: called on that dict (tokenizing, say).
    """

    collater: Collater
    finish: Finish | None = None

    def __call__(self, items: Sequence[tuple[Any, list[BadSample]]]) -> Batch:
        samples = [sample for sample, _ in items if sample is not None]
        joined = dict(self.collater(samples)) if samples else {}
        if samples and self.finish is not None:
            joined = self.finish(joined)
        return Batch(joined, [note for _, notes in items for note in notes])


class Concatenated(Dataset):
    """Several data sets in one; the collater of the first one is used."""

    def __init__(self, datasets: Sequence[Samples]) -> None:
        self.datasets = datasets
        self.starts = [0]
        for dataset in datasets:
            self.starts.append(self.starts[-1] + len(dataset))
        self.collater = getattr(datasets[0], "collater", None)

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> Any:
        which = next(i for i, start in enumerate(self.starts[1:]) if index < start)
        return self.datasets[which][index - self.starts[which]]


class TrainLoader:
    """The training batches of one rank, from any epoch and any position in it.

    Args:
        batch_size: samples per batch on this rank.
        drop_last: leave out an incomplete last batch, unless it is the only one.
        finish: called on the samples of each batch, in the workers (to tokenize, for example).
    """

    def __init__(
        self,
        dataset: Samples,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        drop_last: bool = True,
        policy: Policy = "replace",
        pin_memory: bool = False,
        finish: Finish | None = None,
    ) -> None:
        self.size = len(dataset)
        self.global_batch = batch_size * world_size
        self._schedule = _Schedule(
            self.size, self.global_batch, drop_last, seed=seed, rank=rank, world_size=world_size
        )
        self.batches_per_epoch = self.batches_after(0)
        self._loader = DataLoader(
            KeyedSamples(dataset, seed, policy),
            batch_sampler=self._schedule,
            num_workers=num_workers,
            collate_fn=Collate(_collater(dataset), finish),
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # so that the loader draws nothing from the global one
            worker_init_fn=leave_signals_to_parent,
        )

    @property
    def layout(self) -> dict[str, Any]:
        """The settings that must be equal for the number of a batch to mean the same position in the data."""
        return {"samples": self.size, "global_batch": self.global_batch}

    def batches_after(self, skipped: int) -> int:
        """Return the number of batches of an epoch without its first `skipped` samples."""
        return self._schedule.batches_after(skipped)

    def epoch(self, epoch: int, first_batch: int = 0, skipped: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from `first_batch` on.

        Args:
            epoch: number of the epoch; with the seed it decides the order.
            first_batch: number of the first batch to yield.
            skipped: samples at the beginning of the epoch that are in no batch, because the resumed run
                saw them in batches of another size.
        """
        self._schedule.epoch, self._schedule.first_batch = epoch, first_batch
        self._schedule.skipped = skipped
        for number, batch in enumerate(start_workers(self._loader), start=first_batch):
            batch.filler = self._schedule.is_filler(number)
            yield batch


class _Schedule:
    """The batches of an epoch, as lists of `SampleKey` for one rank.

    Args:
        size: samples of the data set.
        global_batch: samples of all ranks in one batch.
        drop_last: leave out an incomplete last batch, unless it is the only one.
    """

    def __init__(
        self, size: int, global_batch: int, drop_last: bool, *, seed: int, rank: int, world_size: int
    ) -> None:
        # No reference to the loader: in a reference cycle, its workers would end only after a timeout.
        self.size, self.global_batch, self.drop_last = size, global_batch, drop_last
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0
        self.first_batch = 0
        self.skipped = 0

    def __len__(self) -> int:
        return self.batches_after(self.skipped) - self.first_batch

    def batches_after(self, skipped: int) -> int:
        """Return the number of batches of an epoch without its first `skipped` samples."""
        whole, rest = divmod(self.size - skipped, self.global_batch)
        return whole + (1 if rest and (not self.drop_last or not whole) else 0)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order = torch.randperm(self.size, generator=keyed_generator(self.seed, self.epoch)).tolist()
        for number in range(self.first_batch, self.batches_after(self.skipped)):
            share = self._share(number)
            # A rank with an empty share still has to exchange gradients: a filler, with weight 0.
            yield [SampleKey(self.epoch, order[position]) for position in share] or [
                SampleKey(self.epoch, order[0])
            ]

    def is_filler(self, number: int) -> bool:
        return len(self._share(number)) == 0

    def _share(self, number: int) -> range:
        """Return the positions in the epoch's order that are this rank's share of global batch `number`."""
        first = self.skipped + number * self.global_batch
        count = min(self.global_batch, self.size - first)
        cuts = [first + count * rank // self.world_size for rank in range(self.world_size + 1)]
        return range(cuts[self.rank], cuts[self.rank + 1])


def eval_loader(
    dataset: Samples,
    batch_size: int,
    *,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    policy: Policy = "skip",
) -> DataLoader:
    """Return a loader of this rank's share of `dataset`: every sample exactly once over all ranks."""
    keys = [SampleKey(0, index) for index in range(rank, len(dataset), world_size)]
    return DataLoader(
        KeyedSamples(dataset, seed, policy),
        batch_size=batch_size,
        sampler=keys,
        num_workers=num_workers,
        collate_fn=Collate(_collater(dataset)),
        generator=torch.Generator(),
        worker_init_fn=leave_signals_to_parent,
    )


def _collater(dataset: Samples) -> Collater:
    return getattr(dataset, "collater", None) or collate
