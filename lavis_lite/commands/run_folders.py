"""Run folders as the commands use them: which run is read, and who may write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lavis_lite.common import distributed
from lavis_lite.common.checkpoint.store import CheckpointStore
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.saved import is_saved_config
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import LockedError, OwnerLock, first_line
from lavis_lite.common.results import settings_digest
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.runners.changes import differences
from lavis_lite.runners.testing import existing_results

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
# A killed run may need a moment to end; restarted ranks wait for the ranks that they replace.
WAIT_SECONDS = 5.0
WAIT_SECONDS_RESTARTED = 60.0


def saved_run(cfg_path: str | Path) -> RunFolder | None:
    """Return the run folder that `cfg_path` is, or whose config.yaml it is; None for a run file.

    Raises:
        ConfigError: a folder without a config.yaml.
    """
    path = Path(cfg_path).expanduser()
    if path.is_dir():
        if not RunFolder(path).config_file.is_file():
            raise ConfigError(f"{path}: not a run folder, it has no config.yaml.")
        return RunFolder(path)
    return RunFolder(path.parent) if is_saved_config(path) else None


def was_trained(folder: RunFolder) -> bool:
    """Return True where a run has saved weights in `folder`."""
    store = CheckpointStore(folder.checkpoints)
    return store.best.is_file() or bool(store.steps())


def refuse_to_train_into(folder: RunFolder, run: RunConfig) -> None:
    """Refuse a folder with a run if `run.resume` is "never", and one with results but no checkpoint.

    Raises:
        ConfigError: the folder cannot be used. Only a launcher's restart of the same run may continue.
    """
    has_run = bool(CheckpointStore(folder.checkpoints).steps())
    if run.resume == "never" and has_run and not distributed.restarted():
        raise ConfigError(
            f"run.output_dir: {folder.path} already holds a run, and run.resume is never. Choose another "
            "output_dir, or set run.resume=auto to continue that run."
        )
    if existing_results(folder) is not None and not has_run:
        raise ConfigError(
            f"run.output_dir: {folder.path} holds results ({folder.evaluate_file.name}) but no checkpoint to "
            "continue from. Choose another output_dir, or remove these results."
        )


def locked_folder(folder: RunFolder) -> AbstractContextManager[RunFolder]:
    """Lock a folder for a training run; rank 0 holds the lock.

    Raises:
        ConfigError: another process writes to the folder, which is named, or it cannot be written.
    """
    return _locked_by_rank_zero(partial(_lock, folder))


def locked_evaluation_folder(
    folder: RunFolder, made_with: Mapping[str, Any], own_weights: bool
) -> AbstractContextManager[RunFolder]:
    """Choose and lock the folder for the results of an evaluation; rank 0 holds the lock.

    They go to `folder`, unless that would overwrite results of other weights, data or settings, or the
    folder of a run that is being trained or whose weights are not the ones tested. Then they go to
    ``evaluate_DIGEST`` in it, named by what they are made with.

    Args:
        folder: ``run.output_dir``.
        made_with: what the evaluation is made with.
        own_weights: whether the tested weights were saved by the run in `folder`.

    Raises:
        ConfigError: another evaluation writes there, which is named, or the folder cannot be written.
    """
    return _locked_by_rank_zero(partial(_lock_for_evaluation, folder, made_with, own_weights))


@contextmanager
def _locked_by_rank_zero(lock_folder: Callable[[], OwnerLock]) -> Iterator[RunFolder]:
    """Lock on rank 0; yield the locked folder, or raise rank 0's error, on every rank."""
    lock, path, error = None, None, None
    if distributed.is_rank_zero():
        try:
            lock = lock_folder()
            path = lock.path.parent
        except (LockedError, ConfigError) as failure:
            error = str(failure)
    path, error = distributed.broadcast_object((path, error))
    if error is not None:
        raise ConfigError(error)
    try:
        yield RunFolder(path)
    finally:
        if lock is not None:
            lock.release()


def _lock_for_evaluation(folder: RunFolder, made_with: Mapping[str, Any], own_weights: bool) -> OwnerLock:
    digest = settings_digest(made_with).removeprefix("blake2b:")[:8]
    subfolder = RunFolder(folder.path / f"evaluate_{digest}")
    trained = was_trained(folder)
    if trained and not own_weights:
        logger.info("%s holds another run: results go to %s.", folder.path, subfolder.path)
        return _lock(subfolder)
    try:
        lock = _lock(folder, wait_seconds=0 if trained else WAIT_SECONDS)
    except LockedError as error:
        if not trained:
            raise
        logger.info("%s Results go to %s.", error, subfolder.path)
        return _lock(subfolder)
    standing = existing_results(folder)
    if standing is None or standing == made_with:
        return lock
    lock.release()
    changes = "; ".join(str(change) for change in differences(standing, made_with))[:500]
    logger.info("%s holds other results (%s): these go to %s.", folder.evaluate_file, changes, subfolder.path)
    return _lock(subfolder)


def _lock(folder: RunFolder, wait_seconds: float | None = None) -> OwnerLock:
    if wait_seconds is None:
        wait_seconds = WAIT_SECONDS_RESTARTED if distributed.restarted() else WAIT_SECONDS
    lock = OwnerLock(folder.path / LOCK_FILE, f"run.output_dir: {folder.path}")
    try:
        return lock.acquire(wait_seconds)
    except NotImplementedError:  # filelock raises it on a file system without locks
        logger.warning("%s: its file system has no locks; start no second run in this folder.", folder.path)
        return lock
    except OSError as error:
        raise ConfigError(
            f"run.output_dir: {folder.path} cannot be written ({first_line(error)})."
        ) from error
