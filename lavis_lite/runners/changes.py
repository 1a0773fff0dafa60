"""Settings of a run that changed since its checkpoint was written, and what a resumed run does about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, NamedTuple

from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.schema import ConfigError

SHOWN = 8


class Fate(Enum):
    """Reaction of a resumed run to a changed setting."""

    REFUSE = "the weights or the state of the optimizer do not fit it"
    NEW_FOLDER_ONLY = "it decides what the run is trained on, and in which order"
    CARRY_ON = "the run continues with the new value"
    IGNORE = "it says nothing about the run"


# Sections and settings by fate; the longest matching path counts. Every setting that carries on takes
# effect: schedule, optimizer groups, loader and task are built from the current config.
_SETTINGS = {
    Fate.REFUSE: """
        model
        run.task run.runner run.optimizer run.lr_scale run.freeze run.unfreeze_last_vision_layers
    """,
    Fate.NEW_FOLDER_ONLY: """
        model.load_finetuned model.finetuned model.load_pretrained model.pretrained
        datasets preprocess
        run.seed run.train_splits run.train_dataset_ratios
    """,
    Fate.CARRY_ON: """
        model.vit_grad_ckpt model.vit_ckpt_layer
        run
    """,
    Fate.IGNORE: """
        imports
        run.output_dir run.resume run.resume_ckpt_path run.evaluate
        run.world_size run.dist_url run.distributed run.use_dist_eval_sampler
    """,
}
FATES = {path: fate for fate, paths in _SETTINGS.items() for path in paths.split()}
# Settings of every run that have an effect even if nothing is left to train; those of the task do, too.
_AFTER_TRAINING = {"run.test_splits", "run.batch_size_eval", "run.num_workers", "run.amp", "run.device"}
_AFTER_TRAINING |= {"run.report", "run.wandb_project", "run.save_total_limit"}
_OF_EVERY_RUN = {f"run.{field.name}" for field in fields(RunConfig)}
# Number of keys that lead to a field of a `Config`: a field that an older checkpoint lacks is a new one.
_FIELD_DEPTH = {"model": 2, "run": 2, "datasets": 3}


class Change(NamedTuple):
    """A changed setting; None where it was or is not set."""

    key: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} was {_shown(self.was)} and is now {_shown(self.now)}"


def _shown(value: Any) -> str:
    text = "not set" if value is None else repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def differences(was: Any, now: Any, path: tuple[str, ...] = ()) -> Iterator[Change]:
    """Yield the settings in which two configs differ, at the innermost keys."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*now, *was]):
            inner = (*path, str(key))
            is_new_field = key not in was and len(inner) == _FIELD_DEPTH.get(inner[0])
            if not is_new_field:
                yield from differences(was.get(key), now.get(key), inner)
    elif was != now:
        yield Change(".".join(path), was, now)


def fate_of(key: str) -> Fate:
    """Return what a resumed run does about a change of the setting at `key`."""
    parts = key.split(".")
    paths = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((FATES[path] for path in paths if path in FATES), Fate.REFUSE)


def is_of_training(key: str) -> bool:
    """Return True for a setting of the run that has no effect if nothing is left to train."""
    return key in _OF_EVERY_RUN and key not in _AFTER_TRAINING and fate_of(key) is Fate.CARRY_ON


def accepted_changes(
    was: Mapping[str, Any], now: Mapping[str, Any], *, checkpoint: str, new_folder: bool
) -> list[Change]:
    """Return the changes with which a resumed run continues.

    Args:
        new_folder: True if the run continues another run's checkpoint; it may be trained on other data then.

    Raises:
        ConfigError: the run cannot continue with some changes; the message lists all of them.
    """
    changes = [change for change in differences(was, now) if fate_of(change.key) is not Fate.IGNORE]
    refused = [change for change in changes if fate_of(change.key) is Fate.REFUSE]
    other_data = [change for change in changes if fate_of(change.key) is Fate.NEW_FOLDER_ONLY]
    if refused:
        raise ConfigError(
            f"{checkpoint}: cannot be resumed with these settings: {_listed(refused)}. Set them back, or "
            "start a new run in another run.output_dir (model.finetuned=FOLDER takes the weights)."
        )
    if other_data and not new_folder:
        raise ConfigError(
            f"{checkpoint}: was trained on other data or from another start: {_listed(other_data)}. Set them "
            "back, or start a new run in another run.output_dir; there, "
            f"run.resume_ckpt_path={checkpoint} continues from this checkpoint with the new settings."
        )
    return changes


def _listed(changes: list[Change]) -> str:
    more = f"; and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return "; ".join(map(str, changes[:SHOWN])) + more
