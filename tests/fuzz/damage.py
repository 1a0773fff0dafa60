"""Damaged inputs from fixed seeds, and the bounds that every attempt to read one must keep."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

# `make fuzz` sets this; `make test` runs the first few seeds of each family.
FULL = os.environ.get("LAVIS_LITE_FUZZ") == "full"


def seeds(quick: int, full: int) -> range:
    """Return the seeds of a family of damages: `quick` of them in `make test`, `full` in `make fuzz`."""
    return range(full if FULL else quick)


def damaged(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    """Return `content` with one to three faults in it, and what they are."""
    said = []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        fault = draw.choice((_flip, _cut, _zero, _overwrite, _insert, _remove, _repeat))
        content, what = fault(content, draw)
        said.append(what)
    return content, ", ".join(said)


def _place(content: bytes, draw: random.Random) -> int:
    """Return a place in `content`; the beginning, where formats have their headers, comes more often."""
    if not content:
        return 0
    return draw.randrange(min(len(content), 600) if draw.random() < 0.4 else len(content))


def _flip(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    place = _place(content, draw)
    changed = bytearray(content)
    if changed:
        changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed), f"one bit flipped at {place}"


def _cut(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    place = draw.choice((0, _place(content, draw), _place(content, draw), len(content) // 512 // 2 * 512))
    return content[:place], f"cut at {place}"


def _zero(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    place, length = _place(content, draw), draw.choice((1, 16, 512, 4096))
    length = min(length, len(content) - place)
    return content[:place] + bytes(length) + content[place + length :], f"{length} zeros at {place}"


def _overwrite(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    place, length = _place(content, draw), draw.choice((1, 4, 12, 100))
    return content[:place] + draw.randbytes(length) + content[place + length :], f"{length} bytes at {place}"


def _insert(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    place, length = _place(content, draw), draw.choice((1, 7, 512))
    return content[:place] + draw.randbytes(length) + content[place:], f"{length} more bytes at {place}"


def _remove(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    place, length = _place(content, draw), draw.choice((1, 7, 512))
    return content[:place] + content[place + length :], f"{length} bytes gone at {place}"


def _repeat(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    place, length = _place(content, draw), draw.choice((16, 512, 1024))
    return content[: place + length] + content[place:], f"{length} bytes twice at {place}"


class BoundError(AssertionError):
    """Reading took longer, or more memory, than it may."""


@contextmanager
def bounded(seconds: int = 30, mebibytes: int = 512) -> Iterator[None]:
    """Fail where the block takes longer than `seconds`, or this process grows by more than `mebibytes`."""

    def too_long(signum: int, frame: FrameType | None) -> None:
        raise BoundError(f"took longer than {seconds} s")

    before = _reset_peak()
    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    grown = (_memory("VmHWM") - before) / 1024
    if grown > mebibytes:
        raise BoundError(f"took {grown:.0f} MiB")


def _reset_peak() -> int:
    """Let the peak of memory start from here (Linux); return the memory in use, in KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise KeyError(name)
