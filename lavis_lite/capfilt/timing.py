"""Where CapFilt's time goes, and how much more there is of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lavis_lite.common.files import FileError, read_json

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


def is_time_record(file: Path) -> bool:
    """Return whether a file holds what `StageTimes.record` returned."""
    return _read_record(file) is not None


def read_time_records(folder: Path) -> list[dict[str, Any]]:
    """Return the records of an output folder, without damaged ones."""
    records = map(_read_record, sorted((folder / "times").glob("*.json")))
    return [record for record in records if record is not None]


def _read_record(file: Path) -> dict[str, Any] | None:
    try:
        record = read_json(file)
    except FileError:
        return None
    numbers = ("samples", "seconds", "finished", *STAGES)
    whole = isinstance(record, dict) and all(isinstance(record.get(name), int | float) for name in numbers)
    return record if whole else None


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
