"""A whole run of CapFilt over an input, by one process of any number."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from PIL import Image

from lavis_lite.capfilt.begin import refuse_input_as_output
from lavis_lite.capfilt.inputs import Input, Unit
from lavis_lite.capfilt.models import Models
from lavis_lite.capfilt.output import OutputFolder
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.capfilt.work import run_units
from lavis_lite.common.config.schema import ConfigError


def run_capfilt(
    given: Input,
    models: Models,
    settings: CapFiltSettings,
    folder: str | Path,
    progress: Any,
    worker: int = 0,
    workers: int = 1,
    verify: bool = False,
) -> tuple[OutputFolder, list[str]]:
    """Caption and filter all units; return the output folder and the names of the units that failed.

    Any number of processes may run this with one folder; each takes the units that nobody has.

    Args:
        worker, workers: which of how many this is, where that is known: they begin at different places.
        verify: whether to compare large finished files with their digests, which reads all of them.

    Raises:
        ConfigError: pyarrow is not installed.
        CapFiltError: the folder was begun with other settings, models or input, or is not capfilt's; the
            disk is full.
    """
    output = start_run(given, models, settings, folder, verify)
    first = worker * len(given.units) // max(1, workers)
    failed = run_and_finish(
        lambda: run_units(given, models, settings, output, progress, first), output, given.units
    )
    return output, failed


def start_run(
    given: Input, models: Models, settings: CapFiltSettings, folder: str | Path, verify: bool = False
) -> OutputFolder:
    """Return the output folder, new or to be continued.

    Args:
        verify: whether to compare large finished files with their digests, which reads all of them.

    Raises:
        ConfigError: pyarrow is not installed.
        CapFiltError: the folder was begun with other settings, models or input, or is not capfilt's.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError("capfilt writes its scores as parquet: pip install lavis-lite[parquet].")
    identity = {
        "settings": settings.identity(),
        "text_key": given.text_key,
        "max_pixels": Image.MAX_IMAGE_PIXELS,
        "models": models.identity(),
        "shards": {unit.name: unit.source for unit in given.units},
    }
    folder = Path(folder).expanduser()
    refuse_input_as_output(folder, [unit.source for unit in given.units], given.folders)
    return OutputFolder(folder, identity, verify)


def run_and_finish(run: Callable[[], list[str]], output: OutputFolder, units: Sequence[Unit]) -> list[str]:
    """Do all units and write what is made of all of them; return the names of those that failed.

    Args:
        run: does the units that are not done; called again where a finished one turns out to be damaged.
    """
    failed = run()
    if _finish(output, units):
        failed = run()
        _finish(output, units)
    return failed


def _finish(output: OutputFolder, units: Sequence[Unit]) -> list[str]:
    """Write what is made of all units, if all of them are done; return those that are damaged."""
    if not all(output.is_done(unit.name) for unit in units):
        return []
    try:
        with FileLock(output.folder / ".finish.lock"):
            damaged = output.withdraw_damaged_tables()
            if not damaged:
                output.finish()
    except OSError as error:
        raise output.cannot_write(error) from error
    return damaged
