"""Progress of a loop: a tqdm bar on a terminal, a line now and then in a log file."""

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
LINE = (
    "{desc}: {percentage:.0f}% ({n_fmt}/{total_fmt}), {elapsed} elapsed, ETA {remaining}, {rate_fmt}{postfix}"
)
LINE_WITHOUT_TOTAL = "{desc}: {n_fmt}, {elapsed} elapsed, {rate_fmt}{postfix}"


class Progress:
    """Show the progress of `total` steps while its ``with`` block runs.

    On a terminal it is a tqdm bar. Elsewhere a plain line appears at most every `seconds`, and one at
    the end, so that a log file stays readable.

    Args:
        total: number of steps, including those before this process; None if unknown.
        initial: steps done before this process, by the run that is resumed. Rate and remaining time
            are taken from this process alone.
        enabled: False, as on all ranks but the first, shows nothing.
        seconds: least time between two plain lines.
        stream: where to write; standard error if None.
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
            self._values = {}  # reading a tensor could fail again and hide the error
        if self._shown_done != self.done:
            self._show()
        if self._bar is not None:
            self._bar.close()

    def advance(self, n: int = 1, **values: Tensor | float | str) -> None:
        """Count `n` more steps and show `values` beside them.

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
            return
        line = tqdm.format_meter(
            self.done,
            self.total,
            elapsed=self._shown_at - self._started,
            prefix=self.description,
            bar_format=LINE if self.total else LINE_WITHOUT_TOTAL,
            postfix=values,
            initial=self.initial,
        )
        print(line, file=self._stream, flush=True)


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
