"""Leaving at once when a scheduler or a person asks for it; the same command continues."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from lavis_lite.common.signals import handle_stop_signals, restore_handlers


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
    before = handle_stop_signals(_stop)
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
        restore_handlers(before)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    handle_stop_signals(signal.SIG_DFL)
    raise _Stopped(number)
