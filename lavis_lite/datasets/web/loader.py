"""Batches from shards: each stream of a rank reads its own shards, and the streams take turns.

Which stream reads which shards in which order is a function of (seed, epoch), the number of ranks and the
number of workers alone. So an epoch can be entered at any batch: a stream that has to start at its batch n
reads the samples of the batches before, without decoding them, because the shuffle buffer draws from them
and they may replace bad samples of later batches. Every rank yields equally many batches; one that has run
out yields fillers.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, IterableDataset

from lavis_lite.common.batch import BadSample, Batch
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.distributed import leave_signals_to_parent, start_workers
from lavis_lite.common.seeding import key_seed, seeded_scope
from lavis_lite.datasets.loading import ATTEMPTS, READ_ERRORS, Finish, Policy
from lavis_lite.datasets.web.dataset import WebDataset, check_usable
from lavis_lite.datasets.web.index import INDEX_FILE
from lavis_lite.datasets.web.shards import (
    SHARD_ERRORS,
    Damage,
    RawSample,
    Shard,
    ShardError,
    UnusedMember,
    UnusedMembers,
    error_text,
    read_shard,
    require_images,
)

SPARE = 32  # samples kept to stand in for one that cannot be read
MAX_SHUFFLE_BYTES = 512 << 20  # of the samples among which the next one is drawn
logger = logging.getLogger(__name__)


class _Message(NamedTuple):
    """A message from a worker: a batch, warnings to log once, or why there is no batch."""

    batch: Batch | None
    warnings: list[str]
    error: str = ""


class WebTrainLoader:
    """Endless training batches of one rank, from any epoch and any place in it.

    Args:
        batch_size: samples a batch on this rank.
        num_workers: processes that read; 0 reads in this one.
        drop_last: leave out an incomplete last batch of each stream, unless it is the only one.
        finish: called on each batch, in the workers (tokenizing, say).

    Raises:
        ConfigError: fewer shards than streams (ranks times workers), where each is read once; or no
            sample among the first that can be trained on.
    """

    def __init__(
        self,
        dataset: WebDataset,
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
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.num_workers = num_workers
        self.per_rank = max(1, num_workers)
        self.streams = world_size * self.per_rank
        self.policy: Policy = policy
        self.drop_last = drop_last
        self.pin_memory = pin_memory
        self.finish = finish
        if not dataset.resampled and len(dataset.shards) < self.streams:
            raise ConfigError(
                f"{len(dataset.shards)} shards cannot be shared out among {world_size} processes with "
                f"{self.per_rank} workers each ({self.streams} readers). Lower run.num_workers, cut the data "
                "into more shards (`lavis-lite shards make`), or set resampled: true."
            )
        check_usable(dataset.shards, dataset.text_key)
        self._warnings: set[str] = set()

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch; the same on every rank and, with every shard read once, in every epoch."""
        if self.dataset.resampled:
            return max(1, self.dataset.size // (self.batch_size * self.world_size))
        return max(
            sum(self._batches(self._shards(0, stream)) for stream in self._streams_of(rank))
            for rank in range(self.world_size)
        )

    @property
    def layout(self) -> dict[str, Any]:
        """Values that must be equal for a batch number to mean the same position in the data."""
        size = self.dataset.size
        if self.dataset.resampled:
            return {"samples": size, "global_batch": self.batch_size * self.world_size, "resampled": True}
        return {
            "samples": size,
            "shards": len(self.dataset.shards),
            "batch_size_train": self.batch_size,
            "processes": self.world_size,
            "readers of each process": self.per_rank,
            "drop_last": self.drop_last,
        }

    def batches_after(self, skipped: int) -> int:
        """Return how many batches an epoch has; no samples can be skipped."""
        if skipped:
            raise ValueError("the samples of shards cannot be skipped")
        return self.batches_per_epoch

    def epoch(self, epoch: int, first_batch: int = 0, skipped: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from `first_batch` on.

        Raises:
            ShardError: the shards of a stream hold no sample, or too many in a row cannot be read.
        """
        own = self._streams_of(self.rank)
        turns = self._turns([self._planned(epoch, stream) for stream in own])
        starts = [turns[:first_batch].count(worker) for worker in range(self.per_rank)]
        readers = [
            start_workers(self._reader(epoch, stream, start))
            for stream, start in zip(own, starts, strict=True)
        ]
        for number in range(first_batch, self.batches_per_epoch):
            if number < len(turns):
                yield self._received(next(readers[turns[number]]))
            else:
                message = next(start_workers(self._reader(epoch, self._filling_stream(epoch, own), 0)))
                yield Batch(self._received(message).samples, filler=True)

    def _received(self, message: _Message) -> Batch:
        """Return the batch of a message, and log each warning once.

        Raises:
            ShardError: there is no batch.
        """
        for warning in message.warnings:
            if warning not in self._warnings:
                self._warnings.add(warning)
                logger.warning("%s", warning)
        if message.batch is None:
            raise ShardError(message.error)
        return message.batch

    def _filling_stream(self, epoch: int, own: list[int]) -> int:
        """Return a stream that has a batch to lend, one of this rank's if possible."""
        return next(stream for stream in [*own, *range(self.streams)] if self._planned(epoch, stream))

    def _streams_of(self, rank: int) -> list[int]:
        """Return the numbers of a rank's streams: dealt in turn, so that shards are, too."""
        return list(range(rank, self.streams, self.world_size))

    def _turns(self, planned: list[int]) -> list[int]:
        """Return which of this rank's streams makes each batch: in turn, until each has made its own."""
        turns: list[int] = []
        for round_number in range(max(planned)):
            turns += [worker for worker, count in enumerate(planned) if round_number < count]
        return turns[: self.batches_per_epoch]

    def _planned(self, epoch: int, stream: int) -> int:
        if self.dataset.resampled:
            share, rest = divmod(self.batches_per_epoch, self.per_rank)
            return share + (stream // self.world_size < rest)
        return self._batches(self._shards(epoch, stream))

    def _batches(self, shards: list[Shard]) -> int:
        samples = sum(shard.samples or 0 for shard in shards)
        whole, rest = divmod(samples, self.batch_size)
        return whole + (1 if rest and (not self.drop_last or not whole) else 0)

    def _shards(self, epoch: int, stream: int) -> list[Shard]:
        """Return the shards of a stream: the same ones in every epoch, in another order."""
        shards = self.dataset.shards[stream :: self.streams]
        random.Random(key_seed("shards", self.seed, epoch, stream)).shuffle(shards)
        return shards

    def _reader(self, epoch: int, stream: int, first_batch: int) -> DataLoader:
        shards = self.dataset.shards if self.dataset.resampled else self._shards(epoch, stream)
        return DataLoader(
            _Stream(self, shards, epoch, stream, first_batch, self._planned(epoch, stream)),
            batch_size=None,
            num_workers=1 if self.num_workers else 0,
            pin_memory=self.pin_memory,
            worker_init_fn=leave_signals_to_parent,
        )


class _Stream(IterableDataset):
    """The batches of one stream, `first_batch` to `planned`."""

    def __init__(
        self,
        loader: WebTrainLoader,
        shards: list[Shard],
        epoch: int,
        stream: int,
        first_batch: int,
        planned: int,
    ) -> None:
        self.dataset, self.batch_size = loader.dataset, loader.batch_size
        self.seed, self.policy, self.finish = loader.seed, loader.policy, loader.finish
        self.shards, self.epoch, self.stream = shards, epoch, stream
        self.first_batch, self.planned = first_batch, planned
        self.count = 0  # samples that came so far
        self.notes: list[BadSample] = []
        self.warnings: list[str] = []

    def __iter__(self) -> Iterator[_Message]:
        try:
            yield from self._batches()
        except (*READ_ERRORS, MemoryError) as error:
            if self.policy == "raise":
                raise
            yield _Message(None, self.warnings, str(error) or type(error).__name__)

    def _batches(self) -> Iterator[_Message]:
        spare: list[RawSample] = []
        samples = self._shuffled()
        for number in range(self.planned):
            raws = [raw for _, raw in zip(range(self.batch_size), samples, strict=False)]
            if number == self.planned - 1 and not self.dataset.resampled:
                for _ in samples:  # an incomplete batch, or more than the index says; which is warned of
                    pass
            if number >= self.first_batch:
                yield self._message(raws, spare, number)
            spare = (spare + raws)[-SPARE:]

    def _message(self, raws: list[RawSample], spare: list[RawSample], number: int) -> _Message:
        if not raws:  # fewer samples came than were counted
            raws = self._made_up(spare, number)
        items = [item for raw in raws if (item := self._item(raw, [*spare, *raws])) is not None]
        samples = self.dataset.collater(items) if items else {}
        if items and self.finish is not None:
            samples = self.finish(samples)
        message = _Message(Batch(samples, self.notes), self.warnings)
        self.notes, self.warnings = [], []
        return message

    def _made_up(self, spare: list[RawSample], number: int) -> list[RawSample]:
        """Return samples in place of a batch that did not come; note each of them as missing.

        Raises:
            ShardError: more are missing than came.
        """
        if (number + 1) * self.batch_size > 2 * self.count + self.batch_size or not spare:
            names = ", ".join(shard.name for shard in self.shards[:3])
            text = f"{self.count} samples came from {names}{', ...' if len(self.shards) > 3 else ''}"
            raise ShardError(f"{text}, and more than twice as many were counted. {' '.join(self.warnings)}")
        reason = self.warnings[-1] if self.warnings else "fewer samples came than were counted"
        for place in range(self.batch_size):
            self._note(f"missing {self.stream} {number} {place}", reason)
        return spare[: self.batch_size]

    def _item(self, raw: RawSample, others: list[RawSample]) -> dict[str, Any] | None:
        """Return a sample; in place of one that cannot be read another of this stream, always the same."""
        choose = random.Random(key_seed("replacement", self.seed, self.epoch, raw["__key__"]))
        for _ in range(ATTEMPTS):
            try:
                with seeded_scope(self.seed, self.epoch, raw["__key__"]):
                    return self.dataset.item(raw)
            except (*READ_ERRORS, MemoryError) as error:
                if self.policy == "raise":
                    raise
                self._note(f"{raw['__url__']}/{raw['__key__']}", f"{type(error).__name__}: {error}")
                if self.policy == "skip":
                    return None
                raw = choose.choice(others)
        raise ValueError(f"{ATTEMPTS} samples in a row cannot be read; the last one: {self.notes[-1].reason}")

    def _note(self, what: str, reason: str) -> None:
        self.notes.append(BadSample(key_seed(what), reason))

    def _shuffled(self) -> Iterator[RawSample]:
        """Yield raw samples, each drawn from the next `shuffle_buffer` ones."""
        draw = random.Random(key_seed("shuffle", self.seed, self.epoch, self.stream))
        buffer: list[RawSample] = []
        size = 0
        for raw in self._raw():
            buffer.append(raw)
            size += _size_of(raw)
            while len(buffer) > self.dataset.shuffle_buffer or size > MAX_SHUFFLE_BYTES:
                place = draw.randrange(len(buffer))
                buffer[place], buffer[-1] = buffer[-1], buffer[place]
                size -= _size_of(buffer[-1])
                yield buffer.pop()
        draw.shuffle(buffer)
        yield from buffer

    def _raw(self) -> Iterator[RawSample]:
        """Yield the samples that have an image, shard after shard; note what is lost, warn of the rest."""
        empty = 0
        for shard in self._order():
            count = 0
            unused = UnusedMembers()
            try:
                for item in require_images(read_shard(shard)):
                    if isinstance(item, Damage):
                        self._note(f"{shard.name} {item.text}", f"{shard.name}: {item.text}")
                    elif not isinstance(item, UnusedMember):
                        count += 1
                        yield item
                    elif item.is_loss:
                        unused.add(item)
            except SHARD_ERRORS as error:
                self._note(f"{shard.name} {type(error).__name__}", error_text(shard, error))
            self.count += count
            empty = 0 if count else empty + 1
            if self.dataset.resampled and empty == ATTEMPTS:
                reason = self.notes[-1].reason if self.notes else "they hold none"
                raise ShardError(f"{empty} shards in a row gave no sample; the last one: {reason}")
            self.warnings += [f"{shard.name}: {line}" for line in unused.lines()]
            if shard.samples not in (None, count):
                self.warnings.append(
                    f"{shard.name}: holds {count} samples that have an image, not {shard.samples}, as was "
                    f"counted or as its {INDEX_FILE} says (make that again: lavis-lite shards info --write)."
                )

    def _order(self) -> Iterator[Shard]:
        if not self.dataset.resampled:
            yield from self.shards
            return
        draw = random.Random(key_seed("resample", self.seed, self.epoch, self.stream))
        while True:
            yield draw.choice(self.shards)


def _size_of(raw: RawSample) -> int:
    return sum(len(content) for content in raw.values())
