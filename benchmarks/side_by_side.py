"""Time several ways of doing one piece of work, side by side in one process."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch


@dataclass
class Timing:
    """How long one way took: the median, and all of them, in seconds."""

    name: str
    median_seconds: float
    seconds: list[float]


def time_side_by_side(ways: Mapping[str, Callable[[], object]], repeats: int) -> list[Timing]:
    """Return the timings of `ways`, taken in turn, so that a disturbance strikes all of them alike.

    Each runs once before, unmeasured.
    """
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            _finish_pending_work()
            start = time.perf_counter()
            way()
            _finish_pending_work()
            seconds[name].append(time.perf_counter() - start)
    return [Timing(name, statistics.median(taken), taken) for name, taken in seconds.items()]


def _finish_pending_work() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def print_table(title: str, timings: list[Timing], against: str) -> None:
    """Print the medians, and how many times faster than `against` each is."""
    reference = next(timing.median_seconds for timing in timings if timing.name == against)
    width = max(len(timing.name) for timing in timings)
    print(f"\n{title}")
    for timing in timings:
        ratio = reference / timing.median_seconds
        print(f"  {timing.name:<{width}}  {timing.median_seconds:9.3f} s  {ratio:6.2f}x")


def save(path: Path | None, results: Mapping[str, list[Timing]]) -> None:
    """Write all timings with what they were taken on, if a path is given."""
    if path is None:
        return
    content = {
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "results": {title: [asdict(timing) for timing in timings] for title, timings in results.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def describe_machine() -> dict[str, str | int]:
    """Return processor, threads and the versions that matter."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "timm")},
    }


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every benchmark takes."""
    parser.add_argument("--peer", choices=("transformers", "none"), default="transformers")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch on a CPU")
    parser.add_argument("--json", type=Path, help="where to write the timings")
