"""The folder that a command reads a run from or writes one to: whose it is, and what lies in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lavis_lite.common import distributed
from lavis_lite.common.checkpoint.store import CheckpointStore
from lavis_lite.common.config.saved import is_saved_config
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import LockedError, OwnerLock, first_line
from lavis_lite.common.results import settings_digest
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.runners.changes import differences
from lavis_lite.runners.testing import existing_results

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
# A run that was killed may take a moment to be gone; restarted ranks wait for the ones before them.
WAIT_SECONDS = 5.0
WAIT_SECONDS_RESTARTED = 60.0


def saved_run(cfg_path: str | Path) -> RunFolder | None:
    """Return the run folder that `cfg_path` names, itself or by its config.yaml; None for another run file.

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


def take_folder(folder: RunFolder) -> OwnerLock | None:
    """Lock a folder for this run; the lock is held by rank 0, and every rank ends where it is not free.

    Returns:
        The lock on rank 0, None on the others.

    Raises:
        ConfigError: another process writes to the folder, which is named, or it cannot be written.
    """
    return _on_rank_zero(lambda: _lock(folder))


def take_evaluation_folder(
    folder: RunFolder, made_with: Mapping[str, Any], own_weights: bool
) -> tuple[RunFolder, OwnerLock | None]:
    """Return where the results of an evaluation go, and the lock on it (None but on rank 0).

    They go to `folder`, unless that would overwrite results of other weights, data or settings, or the
    folder of a run that is being trained or whose weights are not the ones tested. Then they go to
    ``evaluate_DIGEST`` in it, named by what they are made with.

    Args:
        folder: ``run.output_dir``.
        made_with: what the evaluation is made with.
        own_weights: whether the tested weights are those that the run in `folder` has saved.

    Raises:
        ConfigError: another evaluation writes there; its process is named. Or nobody can write there.
    """
    lock = _on_rank_zero(lambda: _evaluation_lock(folder, made_with, own_weights))
    path = distributed.broadcast_object(lock.path.parent if lock is not None else None)
    return RunFolder(path), lock


def _evaluation_lock(folder: RunFolder, made_with: Mapping[str, Any], own_weights: bool) -> OwnerLock:
    digest = settings_digest(made_with).removeprefix("blake2b:")[:8]
    beside = RunFolder(folder.path / f"evaluate_{digest}")
    trained = was_trained(folder)
    if trained and not own_weights:
        logger.info("%s holds another run: results go to %s.", folder.path, beside.path)
        return _lock(beside)
    try:
        lock = _lock(folder, wait_seconds=0 if trained else WAIT_SECONDS)
    except LockedError as error:
        if not trained:
            raise
        logger.info("%s Results go to %s.", error, beside.path)
        return _lock(beside)
    standing = existing_results(folder)
    if standing is None or standing == made_with:
        return lock
    lock.release()
    changes = "; ".join(str(change) for change in differences(standing, made_with))
    logger.info(
        "%s holds other results (%s): these go to %s.", folder.evaluate_file, changes[:500], beside.path
    )
    return _lock(beside)


def _lock(folder: RunFolder, wait_seconds: float | None = None) -> OwnerLock:
    if wait_seconds is None:
        wait_seconds = WAIT_SECONDS_RESTARTED if distributed.restarted() else WAIT_SECONDS
    lock = OwnerLock(folder.path / LOCK_FILE, f"run.output_dir: {folder.path}")
    try:
        return lock.acquire(wait_seconds)
    except NotImplementedError:  # filelock's word for a file system without locks
        logger.warning("%s: its file system has no locks; start no second run in this folder.", folder.path)
        return lock
    except OSError as error:
        raise ConfigError(
            f"run.output_dir: {folder.path} cannot be written ({first_line(error)})."
        ) from error


def _on_rank_zero(action: Callable[[], OwnerLock]) -> OwnerLock | None:
    """Do `action` on rank 0 and return what it gives there, None elsewhere.

    Raises:
        ConfigError: what went wrong on rank 0, on every rank.
    """
    lock, problem = None, None
    if distributed.is_rank_zero():
        try:
            lock = action()
        except (LockedError, ConfigError) as error:
            problem = str(error)
    problem = distributed.broadcast_object(problem)
    if problem is not None:
        raise ConfigError(problem)
    return lock


def refuse_folder_of_other_results(folder: RunFolder) -> None:
    """Refuse to train into a folder that holds results but no checkpoint to continue from.

    Raises:
        ConfigError: it does.
    """
    if existing_results(folder) is not None and not CheckpointStore(folder.checkpoints).steps():
        raise ConfigError(
            f"run.output_dir: {folder.path} holds results ({folder.evaluate_file.name}) but no checkpoint to "
            "continue from. Choose another output_dir, or remove these results."
        )
