"""The counters of a run, and the check of a checkpoint that a run resumes from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavis_lite.common.checkpoint.store import CheckpointError, load_file

# Part of a resumable checkpoint -> its type.
_CONTENT: dict[str, type] = {
    **dict.fromkeys(("model", "optimizer", "scaler", "state", "metrics"), Mapping),
    "ranks": list,
}


@dataclass
class TrainState:
    """Counters of a run.

    Attributes:
        step: optimizer steps done.
        epoch, batch: the next batch to train on.
        skipped: samples at the beginning of this epoch that are in none of its batches: the run saw them
            in batches of another size, before it was resumed.
        best_score, best_step: of the best validation so far.
        validations_without_gain: number of validations since the best one.
        bad_steps: steps that were skipped because loss or gradient was not finite.
        evaluation_due: True if the segment is trained but not yet validated.
        stopped_early: True if patience ran out.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    skipped: int = 0
    best_score: float | None = None
    best_step: int | None = None
    validations_without_gain: int = 0
    bad_steps: int = 0
    evaluation_due: bool = False
    stopped_early: bool = False

    def improves(self, score: float) -> bool:
        """Record a validation; return True if it is the best so far.

        A score that is not finite is never the best. Among scores of 0, before anything is learned, the
        latest is the best, but does not count as a gain for patience.
        """
        gained = math.isfinite(score) and (self.best_score is None or score > self.best_score)
        self.validations_without_gain = 0 if gained else self.validations_without_gain + 1
        if gained or score == self.best_score == 0:
            self.best_score, self.best_step = score, self.step
            return True
        return False

    def begin_epoch(self, epoch: int) -> None:
        """Move to the first batch of `epoch`."""
        self.epoch, self.batch, self.skipped = epoch, 0, 0

    def forget_best_score(self) -> None:
        """Make the next validation the best one, and count patience from it."""
        self.best_score, self.validations_without_gain, self.stopped_early = None, 0, False

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for field in fields(self):
            setattr(self, field.name, state.get(field.name, field.default))


def load_resumable(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint that a run can resume from.

    Raises:
        CheckpointError: it cannot be read, or `check_resumable` refuses it.
    """
    content = load_file(path)
    try:
        check_resumable(content if isinstance(content, Mapping) else {})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return content


def check_resumable(content: Mapping[str, Any]) -> None:
    """Check that a run can resume from the content of a checkpoint.

    Raises:
        CheckpointError: a part is missing or of the wrong type, or weights are not finite.
    """
    if "state" not in content:
        raise CheckpointError(
            "holds weights but not the state of a run; load it with model.finetuned instead of "
            "run.resume_ckpt_path."
        )
    for name, expected in _CONTENT.items():
        if not isinstance(content.get(name), expected):
            raise CheckpointError(f"is damaged: its part {name!r} is missing or of the wrong type.")
    for part in content["optimizer"].get("parts", [content["optimizer"]]):
        if not isinstance(part, Mapping) or not {"state", "param_groups"} <= part.keys():
            raise CheckpointError("is damaged: the optimizer's state is missing.")
    state = content["state"]
    for field in fields(TrainState):
        value = state.get(field.name, field.default)
        if not isinstance(value, int | float) and (value is not None or field.default is not None):
            raise CheckpointError(f"is damaged: state.{field.name} is {value!r}.")
    for name in ("step", "epoch", "batch"):
        if not isinstance(state.get(name), int) or state[name] < 0:
            raise CheckpointError(f"is damaged: state.{name} is {state.get(name)!r}.")
    for rank in content["ranks"]:
        if not isinstance(rank, Mapping) or not {"rng", "bad_samples"} <= rank.keys():
            raise CheckpointError("is damaged: 'ranks' lacks the generators' states.")
    for key, value in content["model"].items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"is damaged: model.{key} is not a tensor.")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"is damaged: model.{key} holds NaN or infinity.")
