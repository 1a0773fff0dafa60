"""Draw a data set into a folder once, completely or not at all.

The files are written into a folder beside it, which is renamed when it is complete. Meanwhile a lock makes
other processes wait. ``shapes.json`` in the folder holds the settings, so that a folder of other
settings is never taken for the one that was asked for.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.storage.cache import resolve

SETTINGS_FILE = "shapes.json"
# Count up whenever one seed no longer gives the same scenes, captions or pixels.
WORLD_VERSION = 1
LEAST_SIZE, LARGEST_SIZE = 32, 1024


class ShapesError(ConfigError):
    """Settings that cannot be drawn, or a folder that holds something else."""


@dataclass
class DrawnSettings:
    """All that the files of a data set depend on. A subclass adds its fields and writes the files.

    Attributes:
        seed: seed of the scenes.
    """

    data_set: ClassVar[str]  # registered name
    version: ClassVar[int] = 1  # count up whenever one seed no longer gives the same files
    seed: int = 42

    def check(self) -> list[tuple[str, str]]:
        """Return an error, as (field, text), for each value that cannot be drawn."""
        return []

    def write(self, folder: Path) -> None:
        """Write all files into `folder`, which is empty."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """Return the content of `SETTINGS_FILE`."""
        values = {"data_set": self.data_set, **asdict(self), "versions": [WORLD_VERSION, self.version]}
        return json.loads(json.dumps(values))  # lists for tuples, as it is read back

    def cache_name(self) -> str:
        """Return the name of the folder in the cache for these settings."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:10]
        return f"{self.data_set.removeprefix('shapes_')}_{digest}"

    def draw(self, folder: str | Path | None = None) -> Path:
        """Draw the data set into `folder` if it is not there yet, and return the folder.

        Args:
            folder: None for a folder in the cache whose name depends on the settings.

        Raises:
            ShapesError: settings that cannot be drawn, or a folder that holds something else.
        """
        errors = self.check()
        if errors:
            raise ShapesError("\n".join(f"{key} {text}" for key, text in errors))
        path = resolve(f"shapes/{self.cache_name()}") if folder is None else Path(folder).expanduser()
        path = path.absolute()
        if self._is_drawn(path):
            return path  # without a lock: the folder may be read-only
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if not self._is_drawn(path):
                self._write_and_rename(path)
        return path

    def _is_drawn(self, folder: Path) -> bool:
        """Return whether the folder holds this data set; raise if it holds anything else."""
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return False
        marker = folder / SETTINGS_FILE
        if not marker.is_file():
            raise ShapesError(
                f"{folder}: is not a drawn data set (it has no {SETTINGS_FILE}), and is not empty; "
                "choose another folder."
            )
        there, expected = _read_settings(marker), self.identity()
        differences = [
            f"{key} is {there.get(key)!r} there, {expected.get(key)!r} was asked for"
            for key in sorted(there.keys() | expected.keys())
            if there.get(key) != expected.get(key)
        ]
        if differences:
            raise ShapesError(
                f"{marker}: the data set was drawn with other settings: {'; '.join(differences)}. "
                "Ask for the same, choose another folder, or remove this one."
            )
        return True

    def _write_and_rename(self, folder: Path) -> None:
        unfinished = folder.with_name(f".{folder.name}.tmp")
        if unfinished.exists():
            shutil.rmtree(unfinished)  # left by a killed process: the lock is ours
        try:
            unfinished.mkdir()
            self.write(unfinished)
            write_json(self.identity(), unfinished / SETTINGS_FILE)
            if folder.exists():
                folder.rmdir()  # it is empty, and not every system renames onto an empty folder
            unfinished.rename(folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def check_sizes(settings: Any, *counts: str) -> list[tuple[str, str]]:
    """Return errors for the fields `counts` below 0, and for images in which no shape could be seen."""
    errors = [
        (name, f"is {getattr(settings, name)}; give 0 or more.")
        for name in counts
        if getattr(settings, name) < 0
    ]
    if not LEAST_SIZE <= settings.drawn_size <= LARGEST_SIZE:
        text = f"is {settings.drawn_size}; give {LEAST_SIZE} to {LARGEST_SIZE} pixels."
        errors.append(("drawn_size", text))
    return errors


def write_json(content: Any, path: Path) -> None:
    """Write `content` to `path` and make its folder."""
    _write_text(json.dumps(content) + "\n", path)


def write_jsonl(records: Iterable[Any], path: Path) -> None:
    """Write one line for each record to `path` and make its folder."""
    _write_text("".join(json.dumps(record) + "\n" for record in records), path)


def _write_text(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))  # bytes: line ends are the same on every system


def _read_settings(marker: Path) -> dict[str, Any]:
    try:
        settings = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ShapesError(f"{marker}: is not JSON ({error}); remove the folder to draw it again.") from error
    if not isinstance(settings, dict):
        raise ShapesError(f"{marker}: expected a mapping of settings; remove the folder to draw it again.")
    return settings
