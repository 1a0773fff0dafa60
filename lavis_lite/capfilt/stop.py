"""Leaving at once when a scheduler or a person asks for it; the same command continues."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

STOP_SIGNALS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)


class _Stopped(BaseException):
    """Passes through everything that catches errors."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def leave_on_signals() -> Iterator[None]:
    """End the process with 128 plus the signal's number where a stop signal arrives in the block.

    These are SIGTERM, SIGINT, and SIGHUP where it is not ignored, as it is below ``nohup``.

    A unit that is being written is written to its end; the one in hand is left. A second signal ends the
    process without that. Nothing changes where the block does not run in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, _stop) for number in STOP_SIGNALS if not _is_ignored_hangup(number)
    }
    try:
        yield
    except _Stopped as stopped:
        name = signal.Signals(stopped.number).name
        print(f"stopped by {name}; finished shards are kept, the same command continues.", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: it would wait for threads that read ahead, perhaps from a server that is silent.
        os._exit(128 + stopped.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for each in STOP_SIGNALS:
        if not _is_ignored_hangup(each):
            signal.signal(each, signal.SIG_DFL)
    raise _Stopped(number)


def _is_ignored_hangup(number: signal.Signals) -> bool:
    return number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN
