"""Doing a job: any number of workers, here or on a Ray cluster, each take the units that nobody has."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from filelock import FileLock

from lavis_lite.capfilt.job import Job, ShardResult
from lavis_lite.capfilt.output_writer import OutputWriter
from lavis_lite.capfilt.sources import Unit
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.logs.progress import Progress

logger = logging.getLogger(__name__)

ATTEMPTS = 3
DAMAGE_LOGGED = 5
# Errors that are expected of files, networks and devices; others are logged with their traceback.
EXPECTED_ERRORS = (OSError, RuntimeError, ValueError, MemoryError)
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def run_job(job: Job, worker: int = 0, workers: int = 1, show: bool = True) -> tuple[OutputWriter, list[str]]:
    """Do all units that no other process does; return the output folder and the units that failed.

    Any number of processes may do the same job at once. Call it within `exit_on_signals(STOPPED_NOTE,
    at_once=True)`: a unit that is being written when a stop signal arrives is written to its end, the unit
    that the models work on is left.

    Args:
        worker, workers: number of this process, of how many: they begin at different units.
        show: show the progress.

    Raises:
        ConfigError: pyarrow is not installed.
        CapFiltError: the output folder was begun with other settings, models or input, or cannot be used;
            the disk is full.
    """
    output = open_output(job)
    units = list(job.input.units)
    first = worker * len(units) // max(1, workers)
    with Progress(len(units), "capfilt", enabled=show) as progress:
        do = Worker(job, output, progress.advance).run
        return output, _until_whole(lambda: do([*units[first:], *units[:first]]), output, units)


def open_output(job: Job) -> OutputWriter:
    """Return the output folder of a job, new or to be continued; see `run_job`."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError("capfilt writes its scores as parquet: pip install lavis-lite[parquet].")
    job.check_output()
    return OutputWriter(job.output, job.identity(), job.verify)


def _until_whole(run: Callable[[], list[str]], output: OutputWriter, units: Sequence[Unit]) -> list[str]:
    """Call `run`, and again if a finished unit turns out to be damaged; return the units that failed."""
    names = [unit.name for unit in units]
    failed = run()
    if output.finish(names):
        failed = run()
        output.finish(names)
    return failed


class Worker:
    """Does units in this process, and writes each one while the models do the next.

    Args:
        on_unit: called after each unit.
    """

    def __init__(self, job: Job, output: OutputWriter, on_unit: Callable[[], None] = lambda: None) -> None:
        self._job = job
        self._output = output
        self._on_unit = on_unit

    def run(self, units: Sequence[Unit]) -> list[str]:
        """Do the units that nobody has done or is doing; return the names of those that failed.

        Raises:
            CapFiltError: the disk is full.
        """
        failed: list[str] = []
        with ThreadPoolExecutor(1, thread_name_prefix="capfilt-write") as writer:
            pending: Future[None] | None = None
            for unit in units:
                lock = self._output.claim(unit.name)
                if lock is None:
                    if self._output.is_done(unit.name):
                        self._on_unit()
                    continue
                try:
                    result = self._process(unit)
                    if pending is not None:
                        pending.result()  # at most one unit waits to be written
                except BaseException:
                    lock.release()
                    raise
                pending = writer.submit(self._write, unit.name, result, lock, failed)
            if pending is not None:
                pending.result()
        return failed

    def _process(self, unit: Unit) -> ShardResult:
        """Return the result of a unit, which after a few attempts is the error of the last one."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._job.process(unit)
            except Exception as error:
                # The error itself would keep all images of the attempt in memory.
                result = ShardResult(error=_described(error))
                logger.warning(
                    "%s: attempt %d of %d failed: %s",
                    unit.name,
                    attempt,
                    ATTEMPTS,
                    result.error,
                    exc_info=not isinstance(error, EXPECTED_ERRORS),
                )
        return result

    def _write(self, name: str, result: ShardResult, lock: FileLock, failed: list[str]) -> None:
        """Write a unit, or set its error aside, and release its lock.

        Raises:
            CapFiltError: the disk is full, as it would be for every other unit.
        """
        try:
            text = result.error or self._commit(name, result)
            if text:
                failed.append(name)
                self._output.set_aside(name, text)
        except OSError as error:
            if error.errno in FULL_DISK:
                raise self._output.cannot_write(error) from error
            logger.error("%s: %s", name, _described(error))
        finally:
            lock.release()
        self._on_unit()

    def _commit(self, name: str, result: ShardResult) -> str:
        """Write the files of a unit; return why they could not be written, "" if they were."""
        try:
            marker = self._output.commit(name, result, self._job.scorers.names)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL_DISK:
                raise
            logger.error("%s: cannot be written", name, exc_info=not isinstance(error, OSError))
            return _described(error)
        for damage in result.damage[:DAMAGE_LOGGED]:
            logger.warning("%s", damage)
        if len(result.damage) > DAMAGE_LOGGED:
            more = len(result.damage) - DAMAGE_LOGGED
            logger.warning("%s: %d more such lines are in done/%s.json", name, more, name)
        counts = ", ".join(f"{marker[key]} {key}" for key in ("samples", "kept", "filtered", "failed"))
        logger.info("%s: %s", name, counts)
        return ""


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class _RayWorker:
    """An actor that holds the models, and does the units that it is called with."""

    def __init__(self, build_job: Callable[[], Job]) -> None:
        self._job = build_job()
        self._worker = Worker(self._job, open_output(self._job))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        failed = self._worker.run([self._job.input.units[int(row["unit"])]])
        return {"unit": row["unit"], "failed": "\n".join(failed)}


def run_job_on_ray(build_job: Callable[[], Job], actors: int, gpus: float) -> tuple[OutputWriter, list[str]]:
    """Do a job on a Ray cluster; return the output folder and the units that failed.

    The cluster is the one that ``RAY_ADDRESS`` names, or this machine. A unit whose actor dies is given to
    another one.

    Args:
        build_job: called on each actor, too.
        gpus: of each actor.

    Raises:
        ConfigError, CapFiltError: as `run_job`; Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--ray needs Ray: pip install lavis-lite[ray].")
    job = build_job()
    output = open_output(job)
    units = job.input.units
    return output, _until_whole(lambda: _map_on_ray(build_job, len(units), actors, gpus), output, units)


def _map_on_ray(build_job: Callable[[], Job], units: int, actors: int, gpus: float) -> list[str]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if not ray.is_initialized():
        on_sigterm = signal.getsignal(signal.SIGTERM)
        ray.init(log_to_driver=False, configure_logging=False)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # which Ray replaces
    rows = ray.data.from_items([{"unit": number} for number in range(units)], override_num_blocks=units)
    mapper: Any = _RayWorker
    done = rows.map(
        mapper,
        fn_constructor_args=(build_job,),
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_gpus=gpus,
    )
    try:
        return sorted(name for row in done.iter_rows() for name in row["failed"].splitlines())
    except BaseException:
        ray.shutdown()  # else actors outlive a process that leaves without the usual clean-up
        raise
