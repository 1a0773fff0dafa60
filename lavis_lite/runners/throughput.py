"""Speed of training, and the share of time that it waits for data."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from lavis_lite.common import distributed
from lavis_lite.common.batch import Batch
from lavis_lite.common.texts import TokenizedTexts

Item = TypeVar("Item")
IMAGE_KEYS = ("image", "image0", "image1")


class Throughput:
    """Counts images, tokens and seconds between two log lines.

    The counts of one rank are multiplied by the number of ranks: they have equal batches.
    """

    def __init__(self) -> None:
        self._reset()

    def waiting_for(self, windows: Iterable[Item]) -> Iterator[Item]:
        """Yield `windows` and measure the time that each took to arrive."""
        iterator = iter(windows)
        while True:
            started = time.perf_counter()
            try:
                window = next(iterator)
            except StopIteration:
                return
            self.waited += time.perf_counter() - started
            yield window

    def count(self, window: Iterable[Batch]) -> None:
        """Count images and tokens of an optimizer step."""
        for batch in window:
            self.images += sum(len(batch.samples[key]) for key in IMAGE_KEYS if key in batch.samples)
            texts = (value for value in batch.samples.values() if isinstance(value, TokenizedTexts))
            self.tokens += sum(int(value.attention_mask.sum()) for value in texts)

    def values(self, device: torch.device) -> dict[str, float]:
        """Return rates of all ranks together since the last call, the share of waiting, and memory."""
        seconds = time.perf_counter() - self.since
        rates = {"images_per_second": self.images * distributed.world_size() / seconds}
        if self.tokens:
            rates["tokens_per_second"] = self.tokens * distributed.world_size() / seconds
        rates["data_wait_share"] = self.waited / seconds
        rates["peak_memory_gib"] = peak_memory_gib(device)
        self._reset()
        return rates

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time of a block that does something else, such as an evaluation."""
        started = time.perf_counter()
        yield
        self.since += time.perf_counter() - started

    def _reset(self) -> None:
        self.since = time.perf_counter()
        self.images = 0
        self.tokens = 0
        self.waited = 0.0


def peak_memory_gib(device: torch.device) -> float:
    """Return the peak memory in GiB: of tensors on a GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 2**30
