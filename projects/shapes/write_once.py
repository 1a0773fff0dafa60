"""Write a drawn data set into a folder exactly once, whoever asks for it and whoever is killed.

The files are written aside and the folder is renamed when it is complete; a lock makes other
processes wait meanwhile. A small file in the folder holds the settings, so that what lies there is
never taken for what was asked for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

from filelock import FileLock

from .write import SETTINGS_FILE, WORLD_VERSION, ShapesError


class Settings(Protocol):
    """A dataclass of all that the files of a data set depend on, in plain values.

    Attributes:
        version: counted up whenever one seed no longer gives the same files.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    version: ClassVar[int]

    def check(self) -> list[tuple[str, str]]:
        """Return complaints about values that cannot be, as (name, text)."""


def write_once(name: str, folder: str | Path, settings: Settings, write: Callable[[Path], None]) -> Path:
    """Have `write` fill `folder`, if it is not there yet, and return the folder.

    Args:
        name: of the data set ("shapes_vqa").
        write: called with an empty folder beside, which is then renamed.

    Raises:
        ShapesError: settings that cannot be, or a folder that holds something else.
    """
    complaints = settings.check()
    if complaints:
        raise ShapesError("\n".join(f"{key} {text}" for key, text in complaints))
    folder = Path(folder).expanduser().absolute()
    identity = identity_of(name, settings)
    if _is_written(folder, identity):
        return folder  # without a lock, for the place may be read-only
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not _is_written(folder, identity):
            _write_aside_and_rename(folder, identity, write)
    return folder


def identity_of(name: str, settings: Settings) -> dict[str, Any]:
    """Return what the marker file of a data set holds."""
    values = {"data_set": name, **asdict(settings), "versions": [WORLD_VERSION, settings.version]}
    return json.loads(json.dumps(values))  # as they are read back: lists for tuples


def write_json(content: Any, path: Path) -> None:
    """Write `content` to `path`, whose folder is made."""
    _write_text(json.dumps(content) + "\n", path)


def write_jsonl(records: Iterable[Any], path: Path) -> None:
    """Write one line a record to `path`, whose folder is made."""
    _write_text("".join(json.dumps(record) + "\n" for record in records), path)


def _write_text(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))  # bytes, so that line ends are the same on every system


def _is_written(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Return whether the folder holds the data set of `identity`; raise if it holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    marker = folder / SETTINGS_FILE
    if not marker.is_file():
        raise ShapesError(
            f"{folder}: is not a drawn data set (it has no {SETTINGS_FILE}), and is not empty; "
            "choose another folder."
        )
    found = _read_settings(marker)
    differences = [
        f"{key} is {found.get(key)!r} there, {identity.get(key)!r} was asked for"
        for key in sorted(found.keys() | identity.keys())
        if found.get(key) != identity.get(key)
    ]
    if differences:
        raise ShapesError(
            f"{marker}: the data set was written with other settings: {'; '.join(differences)}. "
            "Ask for the same, choose another folder, or remove this one."
        )
    return True


def _read_settings(marker: Path) -> dict[str, Any]:
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ShapesError(f"{marker}: is not JSON ({error}); remove the folder to write it anew.") from error
    if not isinstance(found, dict):
        raise ShapesError(f"{marker}: expected a mapping of settings; remove the folder to write it anew.")
    return found


def _write_aside_and_rename(folder: Path, identity: Mapping[str, Any], write: Callable[[Path], None]) -> None:
    aside = folder.with_name(f".{folder.name}.tmp")
    if aside.exists():
        shutil.rmtree(aside)  # of a process that was killed: the lock is ours
    try:
        aside.mkdir()
        write(aside)
        write_json(identity, aside / SETTINGS_FILE)
        if folder.exists():
            folder.rmdir()  # it is empty, and not every system renames onto an empty folder
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
