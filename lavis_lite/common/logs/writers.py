"""Writers of a run's record: JSON lines for programs, TensorBoard for eyes."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from lavis_lite.common.files import atomic_writer
from lavis_lite.common.registry import suggest

KINDS = ("train", "valid", "test", "note")
LOG_FILE = "log.jsonl"
TENSORBOARD_FOLDER = "tensorboard"

logger = logging.getLogger(__name__)


class JsonlWriter:
    """Append one JSON object a line to `path`, each handed to the system at once.

    A last line that a kill left half-written is cut off on opening, with a warning.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._open()
        _cut_half_line(self._file, self.path)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append `record`; numbers that JSON lacks become "NaN", "Infinity" and "-Infinity".

        Raises:
            TypeError: a value that JSON cannot hold; its key is named and nothing is written.
        """
        line = json.dumps(strict_json(record), allow_nan=False) + "\n"
        self._file.write(line.encode())  # unbuffered: one system call a line

    def truncate_after(self, step: int, redone: Collection[str] = ()) -> int:
        """Drop the lines whose "step" is greater than `step` and return how many they were.

        A resumed run calls this, since it writes those lines again. The file is replaced in one go. Damaged
        lines are moved to ``NAME.damaged`` and named in the log.

        Args:
            step: the last one whose lines stay.
            redone: kinds whose lines of `step` itself go too, because that work is done again.
        """
        lines = self.path.read_bytes().splitlines(keepends=True)
        kept: list[bytes] = []
        damaged: dict[int, bytes] = {}
        for number, line in enumerate(lines, start=1):
            try:
                record = _parse_line(line, self.path, number)
            except ValueError:
                damaged[number] = line
                continue
            at = record.get("step", step)
            if at < step or (at == step and record.get("kind") not in redone):
                kept.append(line)
        if damaged:
            self._set_aside(damaged)
        if len(kept) < len(lines):
            self._replace(kept)
        return len(lines) - len(kept) - len(damaged)

    def start_over(self) -> Path | None:
        """Begin an empty file, if this one has lines; return where the old one is then."""
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
    """Return the objects of a JSON-lines file; a half-written last line is left out.

    Raises:
        ValueError: a whole line that is not a JSON object; file and line are named.
    """
    lines = Path(path).read_bytes().split(b"\n")[:-1]
    return [_parse_line(line, path, number) for number, line in enumerate(lines, start=1)]


def as_number(value: Any) -> float | None:
    """Return a logged value as a number, reading back "NaN" and the infinities; None if it is not one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else None


def strict_json(value: Any, where: str = "record") -> Any:
    """Return `value` in types that strict JSON has.

    >>> strict_json({"loss": float("nan"), "folder": Path("runs")})
    {'loss': 'NaN', 'folder': 'runs'}

    Raises:
        TypeError: there is no such form; `where` and the key are named.
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
    if hasattr(value, "tolist"):  # tensors and numpy's numbers and arrays
        return strict_json(value.tolist(), where)
    raise TypeError(f"{where}: JSON cannot hold {value!r} ({type(value).__name__}); log a number or a text.")


class TensorBoardWriter:
    """Write numbers for TensorBoard into `folder`.

    Args:
        purge_step: first step whose earlier points TensorBoard shall hide, since a resumed run
            writes them anew.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # imports torch, so only when used

        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def add(self, values: Mapping[str, Any], step: int) -> None:
        """Add a point at `step` for each number in `values`; what is no number has no curve."""
        for name, value in strict_json(values).items():
            number = as_number(value)
            if number is not None:
                self._writer.add_scalar(name, number, step)
        self._writer.flush()  # or a kill would lose what its thread still holds

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class NumberWriter(Protocol):
    """What else may be told a run's numbers."""

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Take `values` of `step`."""

    def close(self) -> None:
        """Take no more."""


class RunLog:
    """The record of a run in `folder`: log.jsonl, and the same numbers for TensorBoard and others.

    A line of log.jsonl holds "kind", "step", "time" (seconds since 1970), what `write` got as
    `more`, and the values. The report draws its curves from it.

    Args:
        enabled: False, as on all ranks but the first, writes nothing and makes no file.
        tensorboard: False leaves TensorBoard out.
        further: makes one more writer of numbers, with `add(values, step)` and `close()`.
    """

    def __init__(
        self,
        folder: Path,
        enabled: bool = True,
        *,
        tensorboard: bool = True,
        further: Callable[[], NumberWriter] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._lines = JsonlWriter(self.folder / LOG_FILE) if enabled else None
        self._wants_curves = enabled and tensorboard
        self._curves: TensorBoardWriter | None = None
        self._purge_step: int | None = None
        self._further = further() if enabled and further is not None else None

    def write(self, kind: str, step: int, values: Mapping[str, Any], **more: Any) -> None:
        """Append one line; its numbers go to TensorBoard as "<split or kind>/<name>".

        Args:
            kind: "train", "valid", "test" or "note".
            step: optimizer steps done so far.
            more: what the values belong to, such as ``epoch=3, split="val"``.

        Raises:
            ValueError: an unknown kind, or a value whose name is taken by the line itself.
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
        group = more.get("split", kind)
        named = {f"{group}/{name}": value for name, value in values.items()}
        if self._wants_curves and values:
            self._tensorboard().add(named, step)
        if self._further is not None:
            numbers = {name: as_number(value) for name, value in named.items()}
            self._further.add({name: value for name, value in numbers.items() if value is not None}, step)

    def resume_after(self, step: int, redone: Collection[str] = ()) -> None:
        """Drop what is logged beyond `step`, where the resumed run goes on, and the `redone` kinds of it."""
        if self._lines is None:
            return
        dropped = self._lines.truncate_after(step, redone)
        if dropped:
            logger.info("Dropped %d lines beyond step %d from %s.", dropped, step, self._lines.path)
        self._hide_curves_after(step)

    def start_over(self) -> None:
        """Set aside what an earlier attempt logged, of which no checkpoint is left to go on from."""
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
        if self._lines is not None:
            self._lines.close()
        if self._curves is not None:
            self._curves.close()
        if self._further is not None:
            self._further.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _tensorboard(self) -> TensorBoardWriter:
        if self._curves is None:
            self._curves = TensorBoardWriter(self.folder / TENSORBOARD_FOLDER, self._purge_step)
        return self._curves


def _cut_half_line(file: BinaryIO, path: Path) -> None:
    """Cut `file` after its last line end, looking no further back than it must."""
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
