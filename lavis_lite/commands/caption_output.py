"""The output of `caption`: JSON or CSV, to a stream or a file, with a journal until the file is complete."""

from __future__ import annotations

import codecs
import csv
import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lavis_lite.common.checked_lines import checked_line, parse_checked_line
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import OwnerLock, atomic_writer, kind_of, open_regular

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]
# A spreadsheet runs a cell that begins so as a formula; full-width signs count in some languages.
_FORMULA = re.compile("'*[-=+@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_COLUMNS = ("image", "caption", "error")


def check_output(output: str, files: Sequence[Path]) -> Path:
    """Check that `output` can be written, without writing; return its path with links resolved.

    Args:
        output: the value of ``--output``.
        files: the images to caption.

    Raises:
        ConfigError: it is a folder, a device or one of the images, or it cannot be written.
    """
    path = Path(os.path.realpath(Path(output).expanduser()))
    if path.is_dir():
        raise ConfigError(
            f"--output: {output} is a folder; name a file in it, such as {path / 'captions.json'}."
        )
    if path.exists() and not path.is_file():
        raise ConfigError(
            f"--output: {output} is a {kind_of(path.stat().st_mode)}, not a file; leave --output out to "
            "write to standard output."
        )
    if path.exists() and any(file.name == path.name and path.samefile(file) for file in files):
        raise ConfigError(f"--output: {output} is one of the images to caption; name another file.")
    above = next(folder for folder in path.parents if folder.exists())
    if not above.is_dir():
        raise ConfigError(f"--output: {above} is a file, so {output} cannot be in it; name another file.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"--output: {above} is not writable; name another file.")
    return path


def write_stream(records: Iterable[Record], form: str, stream: IO[str] | None = None) -> int:
    """Write `records` as they come to `stream` (standard output by default); return 1 if any has an error.

    Characters that the encoding of the stream lacks are written as JSON escapes.
    """
    stream = stream or sys.stdout
    failed = False
    for text, bad in _texts(records, form, ascii_only=not _is_utf8(stream)):
        stream.write(text)
        stream.flush()
        failed |= bad
    return int(failed)


def write_captions(records: Iterable[Record], output: Path, form: str) -> int:
    """Write `records` as "json" or "csv" to `output`, atomically.

    A file name that is not UTF-8 is in JSON the same name, by ``\\udc80`` to ``\\udcff`` for its bytes, as
    Python's `os.fsencode` reads it; in CSV it is printed so.

    Returns:
        1 if any record has an error, else 0.
    """
    failed = False
    with atomic_writer(output, "w") as file:
        for text, bad in _texts(records, form, ascii_only=False):
            file.write(text)
            failed |= bad
    return int(failed)


def _is_utf8(stream: IO[str]) -> bool:
    return codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name == "utf-8"


def _texts(records: Iterable[Record], form: str, ascii_only: bool) -> Iterator[tuple[str, bool]]:
    """Yield pieces of the file, and whether the record in it has an error."""
    if form == "csv":
        yield _csv_line(_COLUMNS), False
        for record in records:
            captions = record.get("caption", "")
            for caption in captions if isinstance(captions, list) else [captions]:
                yield _csv_line([record["image"], caption, record.get("error", "")]), "error" in record
        return
    begin = "[\n "
    for record in records:
        text = json.dumps(record, ensure_ascii=ascii_only, indent=1).replace("\n", "\n ")
        yield begin + text, "error" in record
        begin = ",\n "
    yield "[]\n" if begin.startswith("[") else "\n]\n", False


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow([_csv_cell(cell) for cell in cells])  # quotes a lone \r only if lines end so
    return line.getvalue().removesuffix("\r\n") + "\n"


def _csv_cell(text: str) -> str:
    """Return `text` so that no spreadsheet runs it: an apostrophe stands before what looks like a formula.

    Taking one apostrophe away where apostrophes stand before ``= + - @``, a tab or a line end gives the text.
    """
    return f"'{text}" if _FORMULA.match(text) else text


class CaptionJournal:
    """The captions of an unfinished output, a JSON line each, in ``OUTPUT.partial.jsonl`` beside it.

    After a kill the same command reads it and captions only the images that it lacks. It is removed
    when its ``with`` block, in which the output is written, ends without an error. One process at a
    time can use it.

    Args:
        output: the file that is written at the end.
        settings: all that the captions depend on; a journal with other settings is refused.

    Raises:
        LockedError: another process is writing the same output.
        ConfigError: a journal is there that was written with other settings, or is something else.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any]) -> None:
        self.output = output
        self.path = output.with_name(output.name + ".partial.jsonl")
        self.settings = json.loads(json.dumps(settings))
        self._lock = OwnerLock(output.with_name(f".{output.name}.lock"), f"the output {output}")
        self._records: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> CaptionJournal:
        self._lock.acquire()
        try:
            self._read()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.path.unlink(missing_ok=True)
        self._release()

    def extend(
        self, files: Sequence[Path], caption: Callable[[Sequence[Path]], Iterable[dict[str, Any]]]
    ) -> None:
        """Add what `caption` yields for the `files` that are not in the journal yet, one by one.

        A signal that ends it logs how many are done.
        """
        stamps = {str(file): _stamp(file) for file in files}
        self._records = {
            name: record for name, record in self._records.items() if stamps.get(name) == record["stamp"]
        }
        missing = [file for file in files if str(file) not in self._records]
        if self._records:
            logger.info(
                "%s: continuing: %d of %d images are captioned already.",
                self.output, len(files) - len(missing), len(files),
            )  # fmt: skip
        try:
            with self._open() as file:
                for record in caption(missing):
                    self._records[record["image"]] = {**record, "stamp": stamps[record["image"]]}
                    self._append(file, self._records[record["image"]])
        except (SystemExit, KeyboardInterrupt):
            done = sum(str(file) in self._records for file in files)
            logger.info(
                "%d of %d images are in %s, and the same command continues there.",
                done,
                len(files),
                self.path,
            )
            raise

    def records(self, files: Sequence[Path]) -> Iterator[dict[str, Any]]:
        """Yield the record of each of `files`, as `caption` yielded it."""
        for file in files:
            yield {key: value for key, value in self._records[str(file)].items() if key != "stamp"}

    def _open(self) -> IO[bytes]:
        """Write the valid part of the journal, and open it to append."""
        with atomic_writer(self.path) as file:
            for record in [{"settings": self.settings}, *self._records.values()]:
                file.write(checked_line(record))
        return self.path.open("ab")

    def _append(self, file: IO[bytes], record: Record) -> None:
        try:
            file.write(checked_line(record))
            file.flush()
        except OSError as error:
            error.filename = str(self.path)
            raise

    def _read(self) -> None:
        """Read an existing journal; images without a caption, or with an error, are captioned again."""
        if not os.path.lexists(self.path):
            return
        with open_regular(self.path) as file:
            head, *lines = file.read().split(b"\n")
        settings = (parse_checked_line(head) or {}).get("settings")
        if not isinstance(settings, dict):
            raise ConfigError(
                f"{self.path}: is in the way: its first line is not that of unfinished captions. Move it "
                "away, or remove it to start over."
            )
        if settings != self.settings:
            raise ConfigError(
                f"{self.path}: holds unfinished captions made with other settings "
                f"({_differences(settings, self.settings)}). Finish them with the command that began them, "
                "or remove that file to start over."
            )
        records = [parse_checked_line(line) for line in lines if line]
        whole = [record for record in records if record is not None and _is_caption(record)]
        self._records = {record["image"]: record for record in whole}
        damaged = len(records) - sum(record is not None for record in records)
        if damaged:
            logger.warning(
                "%s: %d damaged or half-written lines are left out; their images are captioned again.",
                self.path,
                damaged,
            )

    def _release(self) -> None:
        self._lock.path.unlink(missing_ok=True)
        self._lock.release()


def _is_caption(record: Record) -> bool:
    return isinstance(record.get("image"), str) and "caption" in record and "stamp" in record


def _stamp(path: Path) -> list[int] | None:
    """Return size and time of change, or None for a file that is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    keys = [key for key in {**now, **before} if before.get(key) != now.get(key)]
    return ", ".join(f"{key} was {before.get(key)!r} and is now {now.get(key)!r}" for key in keys)
