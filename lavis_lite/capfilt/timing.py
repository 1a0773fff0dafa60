"""Where CapFilt's time goes, and how much more there is of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

STAGES = ("read", "decode", "wait", "caption", "score", "write")


class StageTimes:
    """Seconds that each stage of a unit took. "wait" is what the models waited for images."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._started = time.perf_counter()
        self._lock = threading.Lock()

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Count the time of the block for `stage`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.perf_counter() - started

    def record(self, samples: int) -> dict[str, Any]:
        """Return what is kept of a unit."""
        return {
            "samples": samples,
            "seconds": time.perf_counter() - self._started,
            "finished": time.time(),
            **self.seconds,
        }


def summary(records: Iterable[Mapping[str, Any]], units: int) -> str:
    """Say how fast the units were done, where the time went, and how long the others will take.

    Args:
        records: of the units that are done.
        units: how many there are in all.
    """
    records = list(records)
    samples = sum(record["samples"] for record in records)
    busy = sum(record["seconds"] for record in records)
    if not samples or not busy:
        return "no image done yet"
    first = min(record["finished"] - record["seconds"] for record in records)
    elapsed = max(record["finished"] for record in records) - first
    models = {stage: sum(record[stage] for record in records) for stage in STAGES}
    shares = ", ".join(f"{stage} {models[stage] / busy:.0%}" for stage in STAGES)
    lines = [
        f"{samples / busy:.1f} images a second and worker; {samples} in {elapsed:.0f} s, "
        f"{samples / max(elapsed, 1e-9):.1f} a second",
        f"time of a worker: {shares} (read and decode run beside the models)",
    ]
    left = units - len(records)
    if left > 0:
        lines.append(f"{left} of {units} units to do: about {_duration(left * elapsed / len(records))}")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    """Write seconds as a person would.

    >>> _duration(4000)
    '1 h 6 min'
    """
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if days >= 2:
        return f"{days:.1f} days"
    if hours >= 1:
        return f"{int(hours)} h {int(minutes % 60)} min"
    return f"{int(minutes)} min {int(seconds % 60)} s"
