"""Beginning an output folder: whose it is, and what it was begun with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from lavis_lite.capfilt.markers import MARKER_FOLDER, read_markers
from lavis_lite.common.files import FileError, first_line, read_json, write_json

SETTINGS_FILE = "settings.json"
DIFFERENCES_SHOWN = 8


class CapFiltError(ValueError):
    """Output that does not belong to this run, or input that cannot be used; the message says which."""


def begin(folder: Path, identity: Mapping[str, Any], made_with: str) -> None:
    """Write down what an output folder is begun with, or make sure that it was begun with the same.

    Of several processes that begin at once, one writes and the others compare with what it wrote.

    Args:
        made_with: digest of `identity`, as the markers of finished units have it.

    Raises:
        CapFiltError: other settings, a folder that is not capfilt's, or one that cannot be written.
    """
    _refuse_foreign(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".settings.lock"):
            _compare_or_write(folder, identity, made_with)
    except OSError as error:
        raise CapFiltError(f"{folder}: cannot be used as output folder ({first_line(error)}).") from error


def read_settings(folder: Path) -> dict[str, Any]:
    """Return what an output folder was begun with: "settings", "models", "text_key", "shards".

    Raises:
        CapFiltError: it is not an output folder of capfilt, or its settings.json is damaged.
    """
    file = folder / SETTINGS_FILE
    if not file.is_file():
        raise CapFiltError(f"{folder}: has no {SETTINGS_FILE}; it is no output folder of capfilt.")
    try:
        settings = read_json(file)
    except FileError as error:
        raise CapFiltError(f"{error} The command that began the folder repairs it.") from error
    if not _is_ours(settings):
        raise CapFiltError(f"{file}: was not written by capfilt; {folder} is no output folder of capfilt.")
    return settings


def refuse_input_as_output(folder: Path, sources: Sequence[str], folders: Sequence[Path]) -> None:
    """Refuse an output folder that is mixed with the input.

    Args:
        sources: canonical paths of input files; the output folder must not contain one.
        folders: input folders; the output folder must not be, contain, or lie in one.

    Raises:
        CapFiltError: it is; the message names the input.
    """
    output = folder.resolve()
    for inside in (path.resolve() for path in folders):
        if output == inside:
            raise CapFiltError(f"{folder}: is the input folder. Choose another output folder.")
        if output.is_relative_to(inside):
            raise CapFiltError(f"{folder}: lies in the input folder {inside}. Choose one outside it.")
        if inside.is_relative_to(output):
            raise CapFiltError(f"{folder}: contains the input folder {inside}. Choose another output folder.")
    for source in sources:
        if Path(source).is_relative_to(output):
            raise CapFiltError(f"{folder}: contains the input {source}. Choose another output folder.")


def _refuse_foreign(folder: Path) -> None:
    try:
        entries = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except FileNotFoundError:
        return
    except OSError as error:
        raise CapFiltError(f"{folder}: cannot be used as output folder ({first_line(error)}).") from error
    # The settings are written before anything else, so they are there if any of the entries is ours.
    if entries and not (folder / SETTINGS_FILE).is_file() and not read_markers(folder):
        listed = ", ".join(entries[:3]) + (", ..." if len(entries) > 3 else "")
        raise CapFiltError(
            f"{folder}: is not empty and not an output folder of capfilt (it holds {listed}). "
            "Choose a new or empty folder."
        )


def _compare_or_write(folder: Path, identity: Mapping[str, Any], made_with: str) -> None:
    file = folder / SETTINGS_FILE
    try:
        before = read_json(file)
    except FileError as error:
        if file.exists() and not (folder / MARKER_FOLDER).is_dir():
            raise CapFiltError(f"{error} Choose another output folder.") from error
        markers = read_markers(folder).values()
        if any(marker["made_with"] != made_with for marker in markers):
            raise CapFiltError(
                f"{folder}: {SETTINGS_FILE} is missing or damaged, and what is finished was made with other "
                "settings. Give the settings that it was begun with, or another output folder."
            ) from None
        write_json(identity, file)
        return
    if not _is_ours(before):
        raise CapFiltError(f"{file}: was not written by capfilt. Choose another output folder.")
    if isinstance(before["shards"], list):
        raise CapFiltError(
            f"{folder}: was begun by version 0.1.0 of lavis-lite, which named shards in another way. Finish "
            "it with that version, or give another output folder; refilter and report read it as it is."
        )
    differs = list(differences(before, identity))
    if differs:
        shown = "; ".join(differs[:DIFFERENCES_SHOWN])
        if len(differs) > DIFFERENCES_SHOWN:
            shown += f"; and {len(differs) - DIFFERENCES_SHOWN} more"
        raise CapFiltError(
            f"{folder}: was begun with other settings ({shown}). Give another output folder, or the same "
            "settings."
        )


def _is_ours(settings: Any) -> bool:
    return isinstance(settings, dict) and {"settings", "models", "shards"} <= settings.keys()


def differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """Yield "KEY was X and is now Y" for each dotted key whose value differs.

    >>> list(differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}))
    ['a.c was 2 and is now 3']
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted(before.keys() | now.keys()):
            yield from differences(before.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif before != now:
        yield f"{key} {_said(before, 'was')} and {_said(now, 'is now')}"


def _said(value: Any, verb: str) -> str:
    if value is None:
        return f"{verb} not set"
    text = repr(value)
    return f"{verb} {text if len(text) <= 100 else text[:97] + '...'}"
