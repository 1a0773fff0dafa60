"""Continuing a run from a checkpoint: from which, with which changed settings, and where in the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_lite.common import distributed
from lavis_lite.common.checkpoint.store import CheckpointError, CheckpointStore
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.seeding import seed_everything, set_rng_state
from lavis_lite.datasets.mixing import Loader
from lavis_lite.runners.changes import Change, Fate, accepted_changes, fate_of, is_of_training
from lavis_lite.runners.state import TrainState, check_resumable, load_resumable
from lavis_lite.runners.testing import test_is_due

if TYPE_CHECKING:
    from lavis_lite.runners.runner_base import RunnerBase

logger = logging.getLogger(__name__)

# With a change of these, scores from before and after it cannot be compared.
_SCORE_KEYS = ("run.best_metric", "run.valid_splits")


@dataclass
class ResumePoint:
    """A checkpoint that a run continues from.

    Attributes:
        path: of the checkpoint.
        content: of the checkpoint.
        new_folder: True if it is another run's, named by ``run.resume_ckpt_path``.
        changes: settings that differ from the checkpoint's and with which the run continues.
    """

    path: Path
    content: dict[str, Any]
    new_folder: bool
    changes: list[Change] = field(default_factory=list)

    @property
    def other_data(self) -> bool:
        """True if the settings name other data than the checkpoint was trained on, or another order."""
        changed = [change.key for change in self.changes if fate_of(change.key) is Fate.NEW_FOLDER_ONLY]
        return any(not key.startswith("model.") for key in changed)


def find_resume_point(
    store: CheckpointStore, resume_ckpt_path: str | None, sections: Mapping[str, Any]
) -> ResumePoint | None:
    """Return where a run continues: at the newest usable checkpoint of its folder, or at `resume_ckpt_path`.

    Args:
        store: the checkpoints in the folder of the run.
        resume_ckpt_path: used if the folder has no checkpoint; None starts from the beginning.
        sections: the resolved config.

    Raises:
        CheckpointError: `resume_ckpt_path` is not a checkpoint that a run can continue from.
        ConfigError: the settings have changed in a way with which the run cannot continue.
    """
    newest = store.load_newest(check_resumable)
    if newest is not None:
        point = ResumePoint(*newest, new_folder=False)
    elif resume_ckpt_path:
        file = _file_of(resume_ckpt_path)
        point = ResumePoint(file, load_resumable(file), new_folder=True)
    else:
        return None
    if not isinstance(point.content.get("config"), Mapping):
        raise CheckpointError(f"{point.path}: does not say with which settings it was trained.")
    point.changes = accepted_changes(
        point.content["config"], sections, checkpoint=str(point.path), new_folder=point.new_folder
    )
    return point


def _file_of(resume_ckpt_path: str) -> Path:
    path = Path(resume_ckpt_path).expanduser()
    if path.is_dir():
        steps = CheckpointStore(path).steps() or CheckpointStore(path / "checkpoints").steps()
        hint = f"its newest checkpoint is {steps[0]}" if steps else "it holds no checkpoint to resume from"
        raise CheckpointError(f"run.resume_ckpt_path: {path} is a folder; {hint}.")
    return path


def resume(runner: RunnerBase, point: ResumePoint) -> None:
    """Put a prepared runner into the state of a checkpoint, and log what has changed since.

    Raises:
        ConfigError: the run cannot continue at this position with these settings.
    """
    content, state = point.content, TrainState()
    state.load_state_dict(content["state"])
    runner.saved_state = {} if point.new_folder else state.state_dict()
    find_place(state, _layout_of(content, runner.loader.layout), runner.loader, point)
    runner.model.load_weights(content["model"], source=str(point.path))
    runner.strategy.load_whole()
    runner.train_step.load_state_dict(content)
    if runner.average is not None:
        if content.get("average") is None:
            logger.warning("%s holds no average of weights; run.ema_decay starts one from here.", point.path)
            runner.average.restart()
        else:
            runner.average.load_state_dict(content["average"])
    runner.metrics.load_state_dict(content["metrics"])
    _restore_rank(runner, state, content["ranks"])
    runner.state = state
    if point.new_folder:  # the best checkpoint lies in the other folder
        state.forget_best_score()
        state.best_step = None
    _check_not_past_the_end(runner)
    _apply_patience(runner, point.changes)
    changes = _changes_in_effect(runner, point.changes)
    _restore_log(runner, point, changes)
    logger.info("Resumed at step %d of %d from %s.", state.step, runner.last_step, point.path)


def _layout_of(content: Mapping[str, Any], now: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the loader's layout; checkpoints of version 0.1.0 have none, but their settings imply it."""
    if "data" in content:
        return content["data"]
    if "global_batch" not in now:
        return now
    return {**now, "global_batch": content["config"]["run"]["batch_size_train"] * len(content["ranks"])}


def find_place(state: TrainState, was: Mapping[str, Any], loader: Loader, point: ResumePoint) -> None:
    """Convert the position in the data that `state` holds to one of `loader`, whose batches may differ.

    Args:
        state: changed in place.
        was: `layout` of the loader that the checkpoint was trained with.
        loader: the current one.
        point: for messages, and for whether other data is allowed.

    Raises:
        ConfigError: the data has changed, or is read in an order that does not have this position.
    """
    now = loader.layout
    if was.get("samples") != now["samples"] and not point.new_folder:
        raise ConfigError(
            f"{point.path}: the training data had {was.get('samples')} samples and has {now['samples']} now. "
            "Put the old data back, or start a new run in another run.output_dir; there, "
            f"run.resume_ckpt_path={point.path} continues from this checkpoint with the new data."
        )
    at_the_start = state.batch == 0 and state.skipped == 0
    other_data = point.other_data or was.get("samples") != now["samples"]
    if at_the_start or (was == now and not other_data):
        return
    if "global_batch" in was and "global_batch" in now and not other_data:
        _convert(state, was["global_batch"], loader)
        return
    if not point.new_folder:
        raise ConfigError(
            f"{point.path}: was written in the middle of epoch {state.epoch + 1}, and with these settings "
            f"the data is read in another order: {_layout_changes(was, now)}. Set them back until the end "
            f"of the epoch, or start another run.output_dir with run.resume_ckpt_path={point.path}, "
            "where the epoch begins again."
        )
    logger.warning(
        "The data or its order differs from the checkpoint's: epoch %d begins again.", state.epoch + 1
    )
    state.batch = state.skipped = 0


def _layout_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    def flat(layout: Mapping[str, Any]) -> dict[str, Any]:
        parts = [layout, *layout.get("parts", ())]
        merged = {key: value for part in parts for key, value in part.items()}
        return {key: value for key, value in merged.items() if key not in ("parts", "samples")}

    before, after = flat(was), flat(now)
    names = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return "; ".join(str(Change(name, before.get(name), after.get(name))) for name in names)


def _convert(state: TrainState, global_batch: int, loader: Loader) -> None:
    """Move to the same sample in batches of another size."""
    now = loader.layout["global_batch"]
    seen = state.skipped + state.batch * global_batch
    state.batch, state.skipped = divmod(seen, now)
    if loader.layout.get("resampled"):
        state.skipped = 0  # each batch is drawn by its number: no sample has a place
    rest = loader.layout["samples"] - seen
    logger.info(
        "A batch of all processes had %d samples and has %d now: continuing after sample %d of epoch %d.",
        global_batch,
        now,
        seen,
        state.epoch + 1,
    )
    if state.batch >= loader.batches_after(state.skipped):
        logger.warning(
            "The last %d samples of epoch %d fill no batch and are left out.", rest, state.epoch + 1
        )
        state.begin_epoch(state.epoch + 1)
        state.evaluation_due = True


def _apply_patience(runner: RunnerBase, changes: list[Change]) -> None:
    """Let a run that has stopped early continue if its patience is larger now."""
    state, patience = runner.state, runner.config.patience
    if not state.stopped_early:
        return
    if patience is None or state.validations_without_gain < patience:
        state.stopped_early = False
    elif any(change.key == "run.max_epoch" for change in changes):
        logger.warning(
            "This run has stopped early, after %d validations without gain; raise run.patience to train on.",
            state.validations_without_gain,
        )


def _changes_in_effect(runner: RunnerBase, changes: list[Change]) -> list[Change]:
    """Log the changes, and return those that have an effect.

    After training, its settings have none: they are set back in the config that is saved.
    """
    ended = runner.has_ended and not runner.state.evaluation_due
    effective = []
    for change in changes:
        if ended and is_of_training(change.key):
            logger.warning("Without effect, since nothing is left to train: %s.", change)
            runner.sections["run"][change.key.removeprefix("run.")] = change.was
            continue
        logger.info("Changed: %s.", change)
        effective.append(change)
        if change.key.startswith(_SCORE_KEYS):
            logger.warning("Scores from before this change do not count: the next validation is the best.")
            runner.state.forget_best_score()
    return effective


def _check_not_past_the_end(runner: RunnerBase) -> None:
    if runner.position <= runner.total_steps:
        return
    if runner.config.max_iters is None:
        trained, limit = f"{runner.position / runner.steps_per_epoch:.4g} epochs", "max_epoch"
    else:
        trained, limit = f"{runner.position} steps", "max_iters"
    raise ConfigError(
        f"run.{limit} is {getattr(runner.config, limit)}, but the run in {runner.folder.path} has already "
        f"been trained for {trained}. Raise it to train longer; lavis-lite evaluate tests what there is."
    )


def _restore_rank(runner: RunnerBase, state: TrainState, ranks: list[dict[str, Any]]) -> None:
    runner.bad_samples.numbers = set().union(*(rank["bad_samples"] for rank in ranks))
    if len(ranks) != distributed.world_size():
        logger.warning(
            "The checkpoint was written by %d processes and this run has %d: it continues from the "
            "same weights and place in the data, but dropout draws other numbers.",
            len(ranks),
            distributed.world_size(),
        )
        seed_everything(runner.config.seed, state.step, distributed.rank())
        return
    set_rng_state(ranks[distributed.rank()]["rng"])


def _restore_log(runner: RunnerBase, point: ResumePoint, changes: list[Change]) -> None:
    """Drop the lines of work that is repeated, and write the changes since the checkpoint."""
    redone = ["note"]  # of an earlier attempt to resume here
    redone += ["valid"] if runner.state.evaluation_due else []
    redone += ["test"] if test_is_due(runner) else []
    runner.log.resume_after(runner.state.step, redone)

    def text(value: Any) -> str:
        return "not set" if value is None else str(value)

    notes = {change.key: f"{text(change.was)} -> {text(change.now)}" for change in changes}
    processes = len(point.content["ranks"]), distributed.world_size()
    if processes[0] != processes[1] and not runner.has_ended:
        notes["processes"] = f"{processes[0]} -> {processes[1]}"
    if point.new_folder:
        notes["continued from"] = str(point.path)
    if notes:
        runner.log.write("note", runner.state.step, notes)
