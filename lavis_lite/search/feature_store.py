"""Rows of features of files in a folder: one process adds, any number of processes read.

====================  ===============================================================================
``index.json``        what the features are of, and how much of the other files counts
``files.jsonl``       a line for each file: its row and the row's checksums, or why it has none
``<name>.<type>``     one feature, row by row
``index.lock``        held by the process that adds
====================  ===============================================================================

An addition writes rows, then lines, then replaces index.json: anything beyond the counts in index.json is
unfinished and ignored. Readers write nothing. Each line and each row has a checksum; a damaged one is
reported and left out, and the next addition repairs it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lavis_lite.common.checked_lines import checked_line, parse_checked_line
from lavis_lite.common.files import FileError, LockedError, OwnerLock, atomic_writer, open_regular
from lavis_lite.search.feature_head import HEAD_FILE, TYPES, FeatureStoreError, Head, read_head

__all__ = ["FeatureStore", "FeatureStoreError"]

logger = logging.getLogger(__name__)
LOCK_FILE = "index.lock"
SHOWN = 20  # damaged lines that are reported one by one
Stamp = list[int]


class FeatureStore:
    """Features of files in `folder`, which is created by the first addition.

    Args:
        folder: where they are.
        about: what the features are of; must equal what the folder says.
        features: shape of a row of each feature, its file named for its type (``x.f32``, ``x.f16``).
            Only for a new folder; an existing one has its own.
        source: how to load the model that makes them, recorded in a new folder.

    Attributes:
        damage: descriptions of what in the folder cannot be used.

    Raises:
        FeatureStoreError: the folder holds the features of something else, or its index.json is damaged.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        features: Mapping[str, Sequence[int]],
        source: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(os.path.realpath(folder))
        shapes = {name: list(shape) for name, shape in features.items()}
        self._new = Head(dict(about), dict(source or {}), shapes, str(self.folder))
        self._lock = OwnerLock(self.folder / LOCK_FILE, f"the index {folder}")
        self.refresh()

    def refresh(self) -> None:
        """Read the current content of the folder.

        Raises:
            FeatureStoreError: as in the constructor.
        """
        for _ in range(20):
            head = read_head(self.folder)
            if head is not None:
                self._refuse_other_features(head)
            self._head = head or self._new
            self._entries: dict[str, dict[str, Any]] = {}
            self.damage: list[str] = []
            lines = self._read_lines()
            if read_head(self.folder) == head:  # otherwise the log was replaced in between
                break
        else:
            raise FeatureStoreError(f"{self.folder}: keeps changing; try again when nobody adds to it.")
        self._parse_lines(lines)
        self._follow_move()
        self._leave_out_missing_rows()

    @property
    def features(self) -> dict[str, list[int]]:
        """Shape of a row of each feature."""
        return self._head.features

    @property
    def rows(self) -> dict[Path, int]:
        """The row of each file that has features."""
        return {Path(path): entry["row"] for path, entry in self._entries.items() if "row" in entry}

    @property
    def errors(self) -> dict[Path, str]:
        """Why other files have none."""
        return {Path(path): entry["error"] for path, entry in self._entries.items() if "error" in entry}

    def read(self, name: str) -> np.ndarray:
        """Return all rows of a feature (rows, ...), mapped into memory."""
        dtype = TYPES[Path(name).suffix]
        shape = (self._readable_rows(name), *self.features[name])
        if shape[0] == 0:
            return np.empty(shape, dtype)
        with open_regular(self.folder / name) as file:
            return np.memmap(file, dtype, "r", shape=shape)

    def changed(self, path: Path) -> bool:
        """Return whether a file has changed since its features were made."""
        return self._entries[str(path)]["stamp"] != stamp_of(path)

    def lacking(self, files: Iterable[str | Path]) -> dict[Path, Stamp | None]:
        """Return those of `files` that have no features or have changed since, with their current stamps.

        Links to folders are followed, so that each file occurs once, under one name.
        """
        folders: dict[Path, str] = {}
        lacking = {}
        for file in map(Path, files):
            if file.parent not in folders:
                folders[file.parent] = os.path.realpath(file.parent)
            path = Path(folders[file.parent], file.name)
            stamp = stamp_of(path)
            entry = self._entries.get(str(path), {})
            if "row" not in entry or entry["stamp"] != stamp:
                lacking[path] = stamp
        return lacking

    def verify(self, name: str) -> None:
        """Leave out the files whose row of a feature is damaged, and describe them in `damage`."""
        for path in self.damaged(name, self.rows):
            row = self._entries.pop(str(path))["row"]
            self.damage.append(f"{self.folder / name}: row {row}, of {path}, is damaged.")

    def damaged(self, name: str, paths: Iterable[Path]) -> list[Path]:
        """Return those of `paths` whose row of a feature has a wrong checksum or is not finite."""
        content = np.asarray(self.read(name))  # indexing a memmap is slow
        damaged = []
        for path in paths:
            entry = self._entries[str(path)]
            row = content[entry["row"]]
            if zlib.crc32(row) != entry["crcs"][name] or not np.isfinite(row).all():
                damaged.append(path)
        return damaged

    @contextlib.contextmanager
    def adding(self, verify: Sequence[str] = ()) -> Iterator[None]:
        """Hold the folder for writing during the block: wait for other writers, create or repair it.

        Args:
            verify: features whose rows are checked first, so that damaged ones are added again.

        Raises:
            FeatureStoreError: the folder is not empty and holds no index, or one of something else.
        """
        self._refuse_foreign_folder()
        try:
            self._lock.acquire()
        except LockedError:
            logger.warning("%s: waiting for %s, which adds to it.", self.folder, self._lock.holder())
            self._lock.acquire(-1)
        try:
            self.refresh()
            if read_head(self.folder) is None:
                self._refuse_foreign_folder()
                self._head.write(self.folder)
            if self._new.source and not self._head.source:
                self._update_head(source=self._new.source)
            for name in verify:
                self.verify(name)
            self._repair()
            yield
        finally:
            self._lock.release()

    def append(
        self,
        stamps: Mapping[Path, Stamp | None],
        features: Mapping[str, np.ndarray],
        errors: Mapping[Path, str],
    ) -> None:
        """Add a row for each file of `stamps`, and a note for each in `errors`, within `adding`.

        Args:
            stamps: result of `lacking` for the files, in the order of the rows.
            features: rows (files, ...) of each feature.
            errors: file -> why it has no features.
        """
        arrays = {
            name: np.ascontiguousarray(features[name], TYPES[Path(name).suffix])
            for name in (self.features if stamps else ())
        }
        entries: list[dict[str, Any]] = [{"path": str(path), "error": text} for path, text in errors.items()]
        for index, (path, stamp) in enumerate(stamps.items()):
            if not all(np.isfinite(array[index]).all() for array in arrays.values()):
                entries.append({"path": str(path), "error": "its features are not finite numbers"})
                continue
            crcs = {name: zlib.crc32(array[index]) for name, array in arrays.items()}
            row = self._head.rows + index
            entries.append({"path": str(path), "row": row, "stamp": stamp, "crcs": crcs})
        for name, array in arrays.items():
            self._write_at(name, self._head.rows * self._head.width(name), array.tobytes())
        self._commit(entries, len(stamps))

    def forget_removed(self) -> list[Path]:
        """Remove and return the files that no longer exist.

        If the folder of a file is gone too, as on a disk that is not mounted, the file stays.
        """
        gone = [path for path in map(Path, self._entries) if path.parent.is_dir() and not path.exists()]
        if gone:
            self._commit([{"path": str(path), "removed": True} for path in gone], 0)
        return gone

    # Reading

    def _refuse_other_features(self, head: Head) -> None:
        differing = [key for key in self._new.about if head.about.get(key) != self._new.about[key]]
        if differing:
            made_with = " ".join(str(value) for value in head.source.values() if value) or "another model"
            raise FeatureStoreError(
                f"{self.folder}: this index was made with other weights or sizes ({', '.join(differing)} "
                f"differ; it was made with {made_with}). Use that model, or name a new folder."
            )

    def _read_lines(self) -> list[bytes]:
        if not self._head.lines:
            return []
        try:
            with open_regular(self.folder / self._head.log) as file:
                return file.read(self._head.log_bytes).split(b"\n")
        except FileError as error:
            self.damage.append(str(error))
            return []

    def _parse_lines(self, lines: Sequence[bytes]) -> None:
        """Enter the last line of each file, and describe the damaged lines."""
        log = self.folder / self._head.log
        damaged = 0
        for number in range(self._head.lines):
            entry = parse_checked_line(lines[number]) if number < len(lines) else None
            if entry is not None and entry.get("line") == number and self._is_sound(entry):
                self._enter(entry)
                continue
            damaged += 1
            if damaged <= SHOWN:
                self.damage.append(f"{log}: line {number + 1} is damaged or missing.")
        if damaged > SHOWN:
            self.damage.append(f"{log}: {damaged - SHOWN} more lines are damaged or missing.")

    def _enter(self, entry: dict[str, Any]) -> None:
        self._entries.pop(entry["path"], None)  # keeps the order of the last lines
        if "removed" not in entry:
            self._entries[entry["path"]] = entry

    def _is_sound(self, entry: Mapping[str, Any]) -> bool:
        if not isinstance(entry.get("path"), str):
            return False
        if "row" not in entry:
            return "removed" in entry or isinstance(entry.get("error"), str)
        row, crcs = entry["row"], entry.get("crcs")
        in_range = isinstance(row, int) and 0 <= row < self._head.rows
        return (
            in_range and "stamp" in entry and isinstance(crcs, dict) and crcs.keys() == self.features.keys()
        )

    def _follow_move(self) -> None:
        """Update the paths if the folder was moved together with the images."""
        before = self._head.folder
        if before == str(self.folder):
            return
        entries, self._entries = self._entries, {}
        for path, entry in entries.items():
            moved = os.path.normpath(self.folder / os.path.relpath(path, before))
            is_moved = not Path(path).exists() and Path(moved).exists()
            self._enter({**entry, "path": moved} if is_moved else entry)

    def _leave_out_missing_rows(self) -> None:
        for name in self.features:
            readable = self._readable_rows(name)
            lost = [path for path, entry in self._entries.items() if entry.get("row", -1) >= readable]
            for path in lost:
                del self._entries[path]
            if lost:
                self.damage.append(
                    f"{self.folder / name}: holds {readable} of {self._head.rows} rows; those of {len(lost)} "
                    f"files are missing ({', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''})."
                )

    def _readable_rows(self, name: str) -> int:
        try:
            size = (self.folder / name).stat().st_size
        except OSError:
            return 0
        return min(self._head.rows, size // self._head.width(name))

    # Writing

    def _refuse_foreign_folder(self) -> None:
        if not self.folder.exists() or read_head(self.folder) is not None:
            return
        if not self.folder.is_dir():
            raise FeatureStoreError(f"{self.folder}: is a file; name a folder for the index.")
        leftovers = (LOCK_FILE, f".{HEAD_FILE}.")  # a kill may leave these before there is an index.json
        others = sorted(file.name for file in self.folder.iterdir() if not file.name.startswith(leftovers))
        if others:
            raise FeatureStoreError(
                f"{self.folder}: is not an index, and not empty (it holds {', '.join(others[:3])}); name "
                "a new folder for the index."
            )

    def _repair(self) -> None:
        """Rewrite the log without damaged or moved entries; truncate what was left unfinished."""
        if self.damage or self._head.folder != str(self.folder):
            for sentence in self.damage:
                logger.warning("%s", sentence)
            lines = [
                checked_line({**entry, "line": number}) for number, entry in enumerate(self._entries.values())
            ]
            before, log = self._head.log, self._head.next_log()
            with atomic_writer(self.folder / log) as file:
                file.writelines(lines)
            self._update_head(
                log=log, lines=len(lines), log_bytes=sum(map(len, lines)), folder=str(self.folder)
            )
            (self.folder / before).unlink(missing_ok=True)
            if self.damage:
                logger.warning("%s: repaired; name the images that were lost to add them.", self.folder)
            self.damage = []
        self._write_at(self._head.log, self._head.log_bytes, b"")
        for name in self.features:
            self._write_at(name, self._head.rows * self._head.width(name), b"")

    def _commit(self, entries: Iterable[Mapping[str, Any]], rows: int) -> None:
        """Append lines to the log, then count them and the rows."""
        numbered = [{**entry, "line": self._head.lines + index} for index, entry in enumerate(entries)]
        content = b"".join(map(checked_line, numbered))
        self._write_at(self._head.log, self._head.log_bytes, content)
        self._update_head(
            lines=self._head.lines + len(numbered),
            log_bytes=self._head.log_bytes + len(content),
            rows=self._head.rows + rows,
        )
        for entry in numbered:
            self._enter(entry)

    def _update_head(self, **changes: Any) -> None:
        head = dataclasses.replace(self._head, **changes)
        head.write(self.folder)
        self._head = head

    def _write_at(self, name: str, position: int, content: bytes) -> None:
        """Truncate a file at `position` and write `content` there, durably."""
        path = self.folder / name
        try:
            path.touch()
            with path.open("r+b") as file:
                file.truncate(position)
                file.seek(position)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            error.filename = str(path)
            raise


def stamp_of(path: Path) -> Stamp | None:
    """Return size and modification time, or None for a missing file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]
