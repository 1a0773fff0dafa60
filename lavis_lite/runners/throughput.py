"""How fast training goes, and what it waits for."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch

from lavis_lite.common import distributed
from lavis_lite.common.texts import TokenizedTexts

Item = TypeVar("Item")
IMAGE_KEYS = ("image", "image0", "image1")


class Throughput:
    """Counts images, tokens and seconds between two log lines.

    What one rank counts stands for all: they have equal batches.
    """

    def __init__(self) -> None:
        self._start_anew()

    def waiting_for(self, windows: Iterable[Item]) -> Iterator[Item]:
        """Yield `windows`, taking note of the time that each was waited for."""
        iterator = iter(windows)
        while True:
            started = time.perf_counter()
            try:
                window = next(iterator)
            except StopIteration:
                return
            self.waited += time.perf_counter() - started
            yield window

    def count(self, window: Iterable[Mapping[str, Any]]) -> None:
        """Take note of the batches of an optimizer step."""
        for samples in window:
            self.images += sum(len(samples[key]) for key in IMAGE_KEYS if key in samples)
            self.tokens += sum(
                int(value.attention_mask.sum())
                for value in samples.values()
                if isinstance(value, TokenizedTexts)
            )

    def values(self, device: torch.device) -> dict[str, float]:
        """Return rates of all ranks together since the last call, the share of waiting, and memory."""
        seconds = time.perf_counter() - self.since
        found = {"images_per_second": self.images * distributed.world_size() / seconds}
        if self.tokens:
            found["tokens_per_second"] = self.tokens * distributed.world_size() / seconds
        found["data_wait_share"] = self.waited / seconds
        found["peak_memory_gib"] = peak_memory_gib(device)
        self._start_anew()
        return found

    def pause(self, seconds: float) -> None:
        """Leave time out that went into something else than training, such as an evaluation."""
        self.since += seconds

    def _start_anew(self) -> None:
        self.since = time.perf_counter()
        self.images = 0
        self.tokens = 0
        self.waited = 0.0


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory held so far: the tensors on a GPU, or this process on a CPU; in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 2**30
