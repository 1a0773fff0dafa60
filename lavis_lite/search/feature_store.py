"""Rows of features of files in a folder: one process adds, any number read meanwhile.

====================  ===============================================================================
``index.json``        what the features are of, and how much of the other files counts
``files.jsonl``       a line for each file: its row and the row's checksums, or why it has none
``<name>.<type>``     one feature, row by row
``index.lock``        held by the process that adds
====================  ===============================================================================

An addition writes rows, then lines, then replaces index.json: what lies behind the counts in index.json
is unfinished, and nobody reads it. Readers write nothing. Each line and each row has a checksum; a damaged
one is named and left out, and the next addition repairs it.
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
Stamp = list[int]


class FeatureStore:
    """Features of files in `folder`, which is created by the first addition.

    Args:
        folder: where they lie.
        about: what the features are of; must equal what the folder says.
        features: shape of a row of each feature, its file named for its type (``x.f32``, ``x.f16``).
            Only of a new folder; one that is there has its own.
        source: how to load the model that makes them, to be remembered in a new folder.

    Attributes:
        damage: what of the folder cannot be used, in sentences.

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
        self._new = Head(
            dict(about),
            dict(source or {}),
            {name: list(shape) for name, shape in features.items()},
            str(self.folder),
        )
        self._lock = OwnerLock(self.folder / LOCK_FILE, f"the index {folder}")
        self.refresh()

    def refresh(self) -> None:
        """Read what the folder holds now.

        Raises:
            FeatureStoreError: as the constructor.
        """
        for _ in range(20):
            head = read_head(self.folder)
            self._head = head or self._new
            if head is not None:
                self._refuse_others(head)
            self._entries: dict[str, dict[str, Any]] = {}
            self.damage: list[str] = []
            lines = self._read_lines()
            if read_head(self.folder) == head:  # or the log was replaced in between
                break
        else:
            raise FeatureStoreError(f"{self.folder}: changes all the time; try again when nobody adds to it.")
        self._take(lines)
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
        """Return all rows of a feature (rows, ...), read from disk only where they are looked at."""
        shape = (self._readable_rows(name), *self.features[name])
        if shape[0] == 0:
            return np.empty(shape, TYPES[Path(name).suffix])
        with open_regular(self.folder / name) as file:
            return np.memmap(file, TYPES[Path(name).suffix], "r", shape=shape)

    def changed(self, path: Path) -> bool:
        """Return whether a file that has features is another one than they were made of."""
        return self._entries[str(path)]["stamp"] != stamp_of(path)

    def lacking(self, files: Iterable[str | Path]) -> dict[Path, Stamp | None]:
        """Return those of `files` that have no features, or have changed since, and their stamps of now.

        Links to folders are followed, so that each file comes once, under one name.
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
        """Leave the files out whose row of a feature is damaged, and name them in `damage`."""
        for path in self.damaged(name, self.rows):
            row_number = self._entries.pop(str(path))["row"]
            self.damage.append(f"{self.folder / name}: row {row_number}, of {path}, is damaged.")

    def damaged(self, name: str, paths: Iterable[Path]) -> list[Path]:
        """Return those of `paths` whose row of a feature does not have its checksum, or is not finite."""
        content = np.asarray(self.read(name))  # rows of a memmap are slow to take
        bad = []
        for path in paths:
            entry = self._entries[str(path)]
            row = content[entry["row"]]
            if zlib.crc32(row) != entry["crcs"][name] or not np.isfinite(row).all():
                bad.append(path)
        return bad

    @contextlib.contextmanager
    def adding(self, verify: Sequence[str] = ()) -> Iterator[None]:
        """Own the folder while the block runs: wait for who else adds to it, create or repair it.

        Args:
            verify: features whose rows are checked first, so that damaged ones are added again.

        Raises:
            FeatureStoreError: the folder is not empty and holds no index, or one of something else.
        """
        self._refuse_foreign_folder()
        self._acquire()
        try:
            self.refresh()
            if read_head(self.folder) is None:
                self._refuse_foreign_folder()
                self._head.write(self.folder)
            if self._new.source and not self._head.source:
                self._write_head(source=self._new.source)
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
        """Add a row for each file of `stamps`, and a note for each in `errors`; in a block of `adding`.

        Args:
            stamps: what `lacking` said of the files, in the order of the rows.
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
        """Take out files that are gone from a folder that is still there, and return them.

        Where the folder itself is gone, as that of a disk that is not mounted, its files stay.
        """
        gone = [path for path in map(Path, self._entries) if path.parent.is_dir() and not path.exists()]
        if gone:
            self._commit([{"path": str(path), "removed": True} for path in gone], 0)
        return gone

    # Reading

    def _refuse_others(self, head: Head) -> None:
        differs = [key for key in self._new.about if head.about.get(key) != self._new.about[key]]
        if differs:
            made_with = " ".join(str(value) for value in head.source.values() if value) or "another model"
            raise FeatureStoreError(
                f"{self.folder}: this index was made with other weights or sizes ({', '.join(differs)} "
                f"differ; it was made with {made_with}). Use that model, or name a new folder."
            )

    def _read_lines(self) -> list[bytes]:
        path = self.folder / self._head.log
        if not self._head.lines:
            return []
        try:
            with open_regular(path) as file:
                return file.read(self._head.log_bytes).split(b"\n")
        except FileError as error:
            self.damage.append(str(error))
            return []

    def _take(self, lines: Sequence[bytes]) -> None:
        """Take the entries of the lines, the last one of each file; name the lines that are damaged."""
        log = self.folder / self._head.log
        damaged = 0
        for number in range(self._head.lines):
            entry = parse_checked_line(lines[number]) if number < len(lines) else None
            if entry is None or entry.get("line") != number or not self._is_sound(entry):
                damaged += 1
                if damaged <= 20:
                    self.damage.append(f"{log}: line {number + 1} is damaged or missing.")
                continue
            self._enter(entry)
        if damaged > 20:
            self.damage.append(f"{log}: {damaged - 20} more lines are damaged or missing.")

    def _enter(self, entry: dict[str, Any]) -> None:
        self._entries.pop(entry["path"], None)  # so that the order is that of the last lines
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
        """Where the folder was moved together with the images, take their new places."""
        before = self._head.folder
        if before == str(self.folder):
            return
        entries = list(self._entries.values())
        self._entries = {}
        for entry in entries:
            path = entry["path"]
            moved = os.path.normpath(self.folder / os.path.relpath(path, before))
            if not Path(path).exists() and Path(moved).exists():
                entry = {**entry, "path": moved}
            self._enter(entry)

    def _leave_out_missing_rows(self) -> None:
        for name in self.features:
            there = self._readable_rows(name)
            lost = [path for path, entry in self._entries.items() if entry.get("row", -1) >= there]
            for path in lost:
                del self._entries[path]
            if lost:
                self.damage.append(
                    f"{self.folder / name}: holds {there} of {self._head.rows} rows; those of {len(lost)} "
                    f"files are missing ({', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''})."
                )

    def _readable_rows(self, name: str) -> int:
        try:
            size = (self.folder / name).stat().st_size
        except OSError:
            return 0
        return min(self._head.rows, size // self._head.width(name))

    # Writing

    def _acquire(self) -> None:
        try:
            self._lock.acquire()
        except LockedError:
            logger.warning("%s: waiting for %s, which adds to it.", self.folder, self._lock.holder())
            self._lock.acquire(-1)

    def _refuse_foreign_folder(self) -> None:
        if not self.folder.exists() or read_head(self.folder) is not None:
            return
        if not self.folder.is_dir():
            raise FeatureStoreError(f"{self.folder}: is a file; name a folder for the index.")
        begun = (LOCK_FILE, f".{HEAD_FILE}.")  # what a kill may leave before there is an index.json
        others = sorted(file.name for file in self.folder.iterdir() if not file.name.startswith(begun))
        if others:
            raise FeatureStoreError(
                f"{self.folder}: is not an index, and not empty (it holds {', '.join(others[:3])}); name "
                "a new folder for the index."
            )

    def _repair(self) -> None:
        """Write the log again without what is damaged or has moved; cut off what was left unfinished."""
        if self.damage or self._head.folder != str(self.folder):
            for sentence in self.damage:
                logger.warning("%s", sentence)
            before = self._head.log
            lines = [
                checked_line({**entry, "line": number}) for number, entry in enumerate(self._entries.values())
            ]
            log = self._head.next_log()
            with atomic_writer(self.folder / log) as file:
                file.writelines(lines)
            self._write_head(
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
        """Add lines behind those that count, and then count them."""
        numbered = [{**entry, "line": self._head.lines + index} for index, entry in enumerate(entries)]
        content = b"".join(map(checked_line, numbered))
        self._write_at(self._head.log, self._head.log_bytes, content)
        self._write_head(
            lines=self._head.lines + len(numbered),
            log_bytes=self._head.log_bytes + len(content),
            rows=self._head.rows + rows,
        )
        for entry in numbered:
            self._enter(entry)

    def _write_head(self, **changes: Any) -> None:
        head = dataclasses.replace(self._head, **changes)
        head.write(self.folder)
        self._head = head

    def _write_at(self, name: str, place: int, content: bytes) -> None:
        """Let a file end with `content` at `place`, on disk."""
        path = self.folder / name
        try:
            path.touch()
            with path.open("r+b") as file:
                file.truncate(place)
                file.seek(place)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            error.filename = str(path)
            raise


def stamp_of(path: Path) -> Stamp | None:
    """Return size and time of change, or None for a file that is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]
