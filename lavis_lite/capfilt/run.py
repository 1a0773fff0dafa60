"""A whole run of CapFilt over an input, by one process of any number."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from lavis_lite.capfilt.inputs import Input, Unit
from lavis_lite.capfilt.models import Models
from lavis_lite.capfilt.output import OutputFolder
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.capfilt.work import run_units
from lavis_lite.common.schema import ConfigError


def run_capfilt(
    given: Input,
    models: Models,
    settings: CapFiltSettings,
    folder: str | Path,
    progress: Any,
    worker: int = 0,
    workers: int = 1,
) -> tuple[OutputFolder, list[str]]:
    """Caption and filter all units; return the output folder and the names of the units that failed.

    Any number of processes may run this with one folder; each takes the units that nobody has.

    Args:
        worker, workers: which of how many this is, where that is known: they begin at different places.

    Raises:
        ConfigError: pyarrow is not installed.
        CapFiltError: the folder was begun with other settings, models or input.
    """
    output = start_run(given, models, settings, folder)
    first = worker * len(given.units) // max(1, workers)
    failed = run_units(given, models, settings, output, progress, first)
    finish_run(output, given.units)
    return output, failed


def start_run(given: Input, models: Models, settings: CapFiltSettings, folder: str | Path) -> OutputFolder:
    """Return the output folder, begun or to be gone on with.

    Raises:
        ConfigError: pyarrow is not installed.
        CapFiltError: the folder was begun with other settings, models or input.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError("capfilt writes its scores as parquet: pip install lavis-lite[parquet].")
    identity = {
        "settings": settings.identity(),
        "text_key": given.text_key,
        "models": models.identity(),
        "shards": [unit.source for unit in given.units],
    }
    return OutputFolder(folder, identity)


def finish_run(output: OutputFolder, units: Sequence[Unit]) -> None:
    """Write what is made of all units, if all of them are done."""
    if all(output.is_done(unit.name) for unit in units):
        with FileLock(output.folder / "done" / ".finish.lock"):
            output.finish()
