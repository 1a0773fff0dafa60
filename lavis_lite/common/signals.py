"""Stop signals: SIGTERM (pre-emption), SIGHUP (a closed terminal) and SIGINT (Ctrl-C).

Schedulers, `timeout` and terminals signal whole process groups. The main process handles signals; the
workers of its data loaders ignore them (`distributed.leave_signals_to_parent`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

Handler = Callable[[int, FrameType | None], Any] | int | None
STOP_SIGNALS: tuple[signal.Signals, ...] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
LAUNCHER_CHECK_SECONDS = 1.0
# Time to finish the step and write the checkpoint after the launcher is gone.
LAUNCHER_GRACE_SECONDS = 60.0


class StoppedError(Exception):
    """The run stopped on a signal and can be resumed.

    Attributes:
        exit_code: 128 plus the signal's number, as shells count.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.exit_code = 128 + signal_number


class StopSignals:
    """Records stop signals while its ``with`` block runs; a second SIGINT raises KeyboardInterrupt.

    Attributes:
        received: the first stop signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: Mapping[int, Handler] = {}

    def __enter__(self) -> StopSignals:
        self._before = handle_stop_signals(self._note)
        return self

    def __exit__(self, *error: object) -> None:
        restore_handlers(self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.received = number
        _say(f"{signal.Signals(number).name}: finishing this step, then saving.")


@contextmanager
def exit_on_signals(note: str = "", at_once: bool = False) -> Iterator[None]:
    """Let a stop signal end the block by SystemExit, with 128 plus the signal's number as exit code.

    Args:
        note: what to say beside the name of the signal.
        at_once: end the process after the block's own clean-up, without waiting for threads that it left
            (which may read from a silent server); a second signal ends it without that clean-up, too.
    """
    code = 0

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        nonlocal code
        code = 128 + number
        if at_once:
            handle_stop_signals(signal.SIG_DFL)
        else:
            _say(f"stopped by {signal.Signals(number).name}{note}.")
        sys.exit(code)

    before = handle_stop_signals(leave)
    try:
        yield
    finally:
        restore_handlers(before)
        if at_once and code:
            sys.stdout.flush()
            sys.stderr.flush()
            _say(f"stopped by {signal.Signals(code - 128).name}{note}.")
            os._exit(code)


@contextmanager
def signals_held() -> Iterator[None]:
    """Block stop signals during the block, also in processes that it starts."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_launcher() -> None:
    """Stop this process when the launcher that started it is gone.

    A launcher that is killed does not stop its processes. This process then gets SIGTERM, as from the
    launcher, and is ended `LAUNCHER_GRACE_SECONDS` later in any case: it may wait for a dead process.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        threading.Thread(target=_watch_launcher, args=(os.getppid(),), daemon=True).start()


def _watch_launcher(launcher: int) -> NoReturn:
    while os.getppid() == launcher:
        time.sleep(LAUNCHER_CHECK_SECONDS)
    _say("the launcher is gone.")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAUNCHER_GRACE_SECONDS)
    os._exit(128 + signal.SIGTERM)


def handle_stop_signals(handler: Handler) -> Mapping[int, Handler]:
    """Set a handler for the stop signals and return the previous ones, for `restore_handlers`.

    Only the main thread can. An ignored SIGHUP stays ignored, as below ``nohup``.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [n for n in STOP_SIGNALS if n == signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in numbers}


def restore_handlers(handlers: Mapping[int, Handler]) -> None:
    """Set the handlers that `handle_stop_signals` returned."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _say(text: str) -> None:
    """Write a line to standard error, unbuffered as a signal handler must, once per machine."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.write(2, f"{text}\n".encode())
