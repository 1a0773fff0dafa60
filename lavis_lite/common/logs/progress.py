"""How far a loop has come: a bar on a terminal, now and then a line in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from torch import Tensor
from tqdm import tqdm

BAR_SECONDS = 0.5  # between two redraws: each reads the values, which waits for the device
LINE_SECONDS = 10.0


class Progress:
    """Show the progress of `total` steps while its ``with`` block runs.

    On a terminal it is a tqdm bar. Elsewhere a plain line appears at most every `seconds`, and
    one at the end, so that a log file stays readable.

    Args:
        total: steps in all, those done before this process included; None if nobody knows.
        initial: steps done before this process, by the run that is resumed. Rate and remaining time
            are taken from this process alone.
        enabled: False, as on all ranks but the first, shows nothing.
        seconds: least time between two plain lines.
        stream: where to write; standard error when None.
        clock: seconds that only ever grow.
    """

    def __init__(
        self,
        total: int | None,
        description: str,
        initial: int = 0,
        enabled: bool = True,
        *,
        seconds: float = LINE_SECONDS,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.description = description
        self.initial = initial
        self.done = initial
        self.enabled = enabled
        self._seconds = seconds
        self._stream = stream
        self._clock = clock
        self._values: dict[str, Any] = {}
        self._bar: tqdm | None = None
        self._started = self._shown_at = clock()
        self._shown_done: int | None = None

    def __enter__(self) -> Progress:
        self._started = self._shown_at = self._clock()
        if self.enabled:
            self._stream = self._stream or sys.stderr
            if self._stream.isatty():
                self._seconds = BAR_SECONDS
                self._bar = tqdm(
                    total=self.total,
                    desc=self.description,
                    initial=self.initial,
                    file=self._stream,
                    dynamic_ncols=True,
                    mininterval=0,
                    miniters=1,
                )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.enabled:
            return
        if kind is not None:
            self._values = {}  # reading a tensor could fail again and hide the error that got us here
        if self._shown_done != self.done:
            self._show()
        if self._bar is not None:
            self._bar.close()

    def advance(self, n: int = 1, **values: Tensor | float | str) -> None:
        """Count `n` more steps and remember `values` to show beside them.

        Tensors are read only when something is shown.
        """
        if not self.enabled:
            return
        self.done += n
        self._values |= values
        if self._clock() - self._shown_at >= self._seconds:
            self._show()

    def _show(self) -> None:
        self._shown_at, self._shown_done = self._clock(), self.done
        values = ", ".join(f"{name} {_readable(value)}" for name, value in self._values.items())
        if self._bar is not None:
            self._bar.set_postfix_str(values, refresh=False)
            self._bar.update(self.done - self._bar.n)
        else:
            print(self._line(values), file=self._stream, flush=True)

    def _line(self, values: str) -> str:
        elapsed = self._shown_at - self._started
        steps_a_second = (self.done - self.initial) / elapsed if elapsed > 0 else 0.0
        parts = []
        if self.total is None:
            parts.append(str(self.done))
        else:
            percentage = 100 * self.done // self.total if self.total else 100
            parts.append(f"{percentage}% ({self.done}/{self.total})")
        if self.total is not None and self.done >= self.total:
            parts.append(f"took {clock_time(elapsed)}")
        elif self.total is not None:
            remaining = (self.total - self.done) / steps_a_second if steps_a_second else None
            parts.append(f"ETA {'?' if remaining is None else clock_time(remaining)}")
        if steps_a_second >= 1:
            parts.append(f"{steps_a_second:.2f}/s")
        elif steps_a_second > 0:
            parts.append(f"{1 / steps_a_second:.2f} s each")
        return f"{self.description}: {', '.join([*parts, values] if values else parts)}"


def clock_time(seconds: float) -> str:
    """Return `seconds` as hours, minutes and seconds.

    >>> clock_time(3725.2)
    '1:02:05'
    """
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole_seconds:02}"


def _readable(value: Tensor | float | str) -> str:
    if isinstance(value, Tensor):
        value = value.item()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
