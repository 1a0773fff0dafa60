"""The log of a run: JSON lines, TensorBoard, and other writers of numbers."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from lavis_lite.common.files import atomic_writer
from lavis_lite.common.logs.weights_and_biases import WandbWriter
from lavis_lite.common.registry import suggest

KINDS = ("train", "valid", "test", "note")
LOG_FILE = "log.jsonl"
TENSORBOARD_FOLDER = "tensorboard"

logger = logging.getLogger(__name__)


class JsonlWriter:
    """Append JSON objects to `path`, one per line, unbuffered.

    A last line that a kill left half-written is cut off on opening, with a warning.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open()
        _cut_half_line(self._file, self.path)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append `record`; numbers that JSON does not have become "NaN", "Infinity" and "-Infinity".

        Raises:
            TypeError: a value that JSON cannot hold; the message names its key, and nothing is written.
        """
        line = json.dumps(strict_json(record), allow_nan=False) + "\n"
        self._file.write(line.encode())  # unbuffered: one system call a line

    def truncate_after(self, step: int, redone: Collection[str] = ()) -> int:
        """Drop the lines whose "step" is greater than `step`, and return their number.

        A resumed run calls this, since it writes those lines again. The file is replaced atomically.
        Damaged lines are moved to ``NAME.damaged``, with a warning.

        Args:
            step: the last one whose lines stay.
            redone: kinds whose lines at `step` are dropped too, because that work is repeated.
        """
        lines = self.path.read_bytes().splitlines(keepends=True)
        remaining: list[bytes] = []
        damaged: dict[int, bytes] = {}
        for number, line in enumerate(lines, start=1):
            try:
                record = _parse_line(line, self.path, number)
            except ValueError:
                damaged[number] = line
                continue
            at = record.get("step", step)
            if at < step or (at == step and record.get("kind") not in redone):
                remaining.append(line)
        if damaged:
            self._set_aside(damaged)
        if len(remaining) < len(lines):
            self._replace(remaining)
        return len(lines) - len(remaining) - len(damaged)

    def start_over(self) -> Path | None:
        """Start an empty file if this one has lines; return the new path of the old one."""
        if not self.path.stat().st_size:
            return None
        previous = self.path.with_name(self.path.name + ".previous")
        self._file.close()
        try:
            self.path.replace(previous)
        finally:
            self._file = self._open()
        return previous

    def _set_aside(self, damaged: Mapping[int, bytes]) -> None:
        aside = self.path.with_name(self.path.name + ".damaged")
        with aside.open("ab") as file:
            file.writelines(line.rstrip(b"\n") + b"\n" for line in damaged.values())
        logger.warning(
            "%s: %d damaged lines (%s) were moved to %s.",
            self.path,
            len(damaged),
            ", ".join(map(str, [*damaged][:10])) + (", ..." if len(damaged) > 10 else ""),
            aside.name,
        )

    def _replace(self, lines: Sequence[bytes]) -> None:
        self._file.close()
        try:
            with atomic_writer(self.path) as file:
                file.writelines(lines)
        finally:
            self._file = self._open()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._file.close()

    def _open(self) -> BinaryIO:
        return self.path.open("ab+", buffering=0)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file without a half-written last line.

    Raises:
        ValueError: a whole line that is not a JSON object; the message names file and line.
    """
    lines = Path(path).read_bytes().split(b"\n")[:-1]
    return [_parse_line(line, path, number) for number, line in enumerate(lines, start=1)]


def as_number(value: Any) -> float | None:
    """Return a logged value as a number, also "NaN" and the infinities; None if it is not a number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else None


def strict_json(value: Any, where: str = "record") -> Any:
    """Return `value` in types of strict JSON.

    >>> strict_json({"loss": float("nan"), "folder": Path("runs")})
    {'loss': 'NaN', 'folder': 'runs'}

    Raises:
        TypeError: JSON cannot hold it; the message names `where` and the key.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): strict_json(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if hasattr(value, "tolist"):  # tensors, numbers and arrays of numpy
        return strict_json(value.tolist(), where)
    raise TypeError(f"{where}: JSON cannot hold {value!r} ({type(value).__name__}); log a number or a text.")


class TensorBoardWriter:
    """Write numbers for TensorBoard into `folder`.

    Args:
        purge_step: first step of which TensorBoard hides earlier points, because a resumed run writes
            them again.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # imports torch, so only when used

        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def add(self, values: Mapping[str, Any], step: int) -> None:
        """Add a point at `step` for each number in `values`."""
        for name, number in _numbers(strict_json(values)).items():
            self._writer.add_scalar(name, number, step)
        self._writer.flush()  # or a kill would lose the points that its thread holds

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class RunLog:
    """The log of a run in `folder`: log.jsonl, and the same numbers for TensorBoard and others.

    A line of log.jsonl holds "kind", "step", "time" (seconds since 1970), the `more` of `write`, and the
    values. The report draws its curves from it.

    Args:
        enabled: False, as on all ranks but the first, writes nothing and creates no file.
        tensorboard: False leaves TensorBoard out.
        further: creates one more writer of numbers, such as `WandbWriter`.
    """

    def __init__(
        self,
        folder: Path,
        enabled: bool = True,
        *,
        tensorboard: bool = True,
        further: Callable[[], WandbWriter] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._lines = JsonlWriter(self.folder / LOG_FILE) if enabled else None
        self._has_curves = tensorboard
        self._curves: TensorBoardWriter | None = None
        self._purge_step: int | None = None
        self._further = further() if enabled and further is not None else None

    def write(self, kind: str, step: int, values: Mapping[str, Any], **more: Any) -> None:
        """Append one line; its numbers go to TensorBoard as "<split or kind>/<name>".

        Args:
            kind: "train", "valid", "test" or "note".
            step: optimizer steps done so far.
            more: further keys of the line, such as ``epoch=3, split="val"``.

        Raises:
            ValueError: an unknown kind, or a value with the name of another key of the line.
        """
        if kind not in KINDS:
            raise ValueError(f"No log line is of kind {kind!r}.{suggest(kind, KINDS)}")
        head = {"kind": kind, "step": step, "time": round(time.time(), 1), **more}
        taken = sorted(head.keys() & values.keys())
        if taken:
            raise ValueError(f"A log line has its own {', '.join(taken)}; give that value another name.")
        if self._lines is None:
            return
        values = strict_json(values)
        self._lines.write({**head, **values})
        named = {f"{more.get('split', kind)}/{name}": value for name, value in values.items()}
        if self._has_curves and values:
            if self._curves is None:
                self._curves = TensorBoardWriter(self.folder / TENSORBOARD_FOLDER, self._purge_step)
            self._curves.add(named, step)
        if self._further is not None:
            self._further.add(_numbers(named), step)

    def resume_after(self, step: int, redone: Collection[str] = ()) -> None:
        """Drop the lines after `step`, where the run resumes, and those of the `redone` kinds at it."""
        if self._lines is None:
            return
        dropped = self._lines.truncate_after(step, redone)
        if dropped:
            logger.info("Dropped %d lines beyond step %d from %s.", dropped, step, self._lines.path)
        self._hide_curves_after(step)

    def start_over(self) -> None:
        """Rename the log of an earlier attempt that left no checkpoint to resume from."""
        if self._lines is None:
            return
        previous = self._lines.start_over()
        if previous is not None:
            logger.info("The log of an earlier start, which left no checkpoint, is now %s.", previous)
            self._hide_curves_after(0)

    def _hide_curves_after(self, step: int) -> None:
        if self._curves is not None:
            self._curves.close()
            self._curves = None
        self._purge_step = step + 1

    def close(self) -> None:
        """Close all files."""
        for writer in (self._lines, self._curves, self._further):
            if writer is not None:
                writer.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: as_number(value) for name, value in values.items()}
    return {name: number for name, number in numbers.items() if number is not None}


def _cut_half_line(file: BinaryIO, path: Path) -> None:
    """Truncate `file` after its last line end."""
    end = file.seek(0, os.SEEK_END)
    position, keep = end, 0
    while position > 0 and keep == 0:
        start = max(0, position - 65536)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        keep = start + newline + 1 if newline >= 0 else 0
        position = start
    if keep < end:
        logger.warning("%s: cut off a half-written last line (%d bytes).", path, end - keep)
        file.truncate(keep)


def _parse_line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: line {number} is not JSON ({error}). Repair or remove that line."
        ) from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}: line {number} is not a JSON object. Repair or remove that line.")
    step = record.get("step", 0)
    if not isinstance(step, int) or isinstance(step, bool):
        raise ValueError(f"{path}: line {number}: its step is {step!r}. Repair or remove that line.")
    return record
