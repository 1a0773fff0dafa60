"""Being asked to stop: Ctrl-C and SIGTERM end every command in order, with one line."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequest(KeyboardInterrupt):
    """SIGINT or SIGTERM has come.

    Attributes:
        number: of the signal.
        hint: what is saved, and how to continue; a command that knows sets it.
    """

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(number)
        self.number = number
        self.hint = hint

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells count."""
        return 128 + self.number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}{self.hint and '; ' + self.hint}"


@contextlib.contextmanager
def stop_requests() -> Iterator[None]:
    """Raise `StopRequest` in the main thread when SIGINT or SIGTERM comes while the block runs.

    A signal that is ignored, as SIGINT is in a script's background jobs, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            before[number] = signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    raise StopRequest(number)
