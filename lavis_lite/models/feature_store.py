"""Rows of features of files, appended to a folder: what a kill leaves is used again.

====================  ============================================================
``index.json``        what the features are of; two stores with other values do not mix
``files.jsonl``       a line for each file: its row and stamp, or why it has none
``<name>.<type>``     one feature, row by row
====================  ============================================================

A line is written after its row, so that every row that a line names is whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lavis_lite.common.files import write_json


class FeatureStoreError(ValueError):
    """Features that do not belong to the model, or are damaged; the message says which and why."""


class FeatureStore:
    """Features of files in `folder`, which is made if it is not there.

    Args:
        about: what the features are of; must equal what the folder says.
        features: shape of a row of each feature, its file named for its type (``x.f32``, ``x.f16``).
            Only of a new folder; one that is there keeps its own.

    Raises:
        FeatureStoreError: the folder holds something else, or is damaged.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], features: Mapping[str, Sequence[int]]) -> None:
        self.folder = folder
        self.features = self._open({**about, "features": {name: list(s) for name, s in features.items()}})
        self._entries = self._read_entries()
        self._rows = self._forget_half_written_rows()

    @property
    def rows(self) -> dict[Path, int]:
        """The row of each file that has features."""
        return {Path(path): entry["row"] for path, entry in self._entries.items() if "row" in entry}

    @property
    def errors(self) -> dict[Path, str]:
        """Why the other files have none."""
        return {Path(path): entry["error"] for path, entry in self._entries.items() if "error" in entry}

    def lacks(self, path: Path) -> bool:
        """Return whether the file has no features, or has changed since it got them."""
        entry = self._entries.get(str(path))
        return entry is None or "error" in entry or entry["stamp"] != _stamp(path)

    def append(
        self, paths: Sequence[Path], features: Mapping[str, np.ndarray], errors: Mapping[Path, str]
    ) -> None:
        """Add a row for each of `paths`, and a note for each file in `errors`."""
        for name, rows in features.items():
            with (self.folder / name).open("ab") as file:
                file.write(rows.astype(_TYPES[Path(name).suffix], copy=False).tobytes())
        lines: list[dict[str, Any]] = [{"path": str(path), "error": text} for path, text in errors.items()]
        for path in paths:
            lines.append({"path": str(path), "row": self._rows, "stamp": _stamp(path)})
            self._rows += 1
        with (self.folder / "files.jsonl").open("a", encoding="utf-8") as log:
            log.writelines(json.dumps(line) + "\n" for line in lines)
        self._take(lines)

    def read(self, name: str) -> np.ndarray:
        """Return all rows of a feature, read from disk only where they are looked at."""
        shape = (self._rows, *self.features[name])
        return np.memmap(self.folder / name, _TYPES[Path(name).suffix], "r", shape=shape)

    def _open(self, about: dict[str, Any]) -> dict[str, list[int]]:
        file = self.folder / "index.json"
        if not file.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(about, file)
            return about["features"]
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FeatureStoreError(f"{file}: is not valid JSON ({error}).") from error
        differs = [key for key in about if key != "features" and held.get(key) != about[key]]
        if differs:
            raise FeatureStoreError(
                f"{self.folder}: was made with other weights or sizes ({', '.join(differs)} differ); "
                "load the model it was made with, or give a new folder."
            )
        return held["features"]

    def _read_entries(self) -> dict[str, dict[str, Any]]:
        """Return the last line of each file; half a line, which a kill leaves, is cut off."""
        self._entries = {}
        log = self.folder / "files.jsonl"
        if not log.is_file():
            return self._entries
        content = log.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            log.write_bytes(whole)
        self._take([json.loads(line) for line in whole.splitlines()])
        return self._entries

    def _take(self, lines: Sequence[dict[str, Any]]) -> None:
        for line in lines:
            self._entries.pop(line["path"], None)  # so that the order is that of the last lines
            self._entries[line["path"]] = line

    def _forget_half_written_rows(self) -> int:
        """Cut the features back to the rows that the log knows; return how many."""
        rows = 1 + max(self.rows.values(), default=-1)
        for name, shape in self.features.items():
            file = self.folder / name
            width = int(np.prod(shape)) * np.dtype(_TYPES[Path(name).suffix]).itemsize
            file.touch()
            if file.stat().st_size < rows * width:
                raise FeatureStoreError(
                    f"{file}: holds {file.stat().st_size} bytes, but files.jsonl knows {rows} rows of "
                    f"{width}; remove the folder and build it again."
                )
            with file.open("r+b") as opened:
                opened.truncate(rows * width)
        return rows


_TYPES = {".f32": np.float32, ".f16": np.float16}


def _stamp(path: Path) -> list[int] | None:
    """Return size and time of change, or None for a file that is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]
