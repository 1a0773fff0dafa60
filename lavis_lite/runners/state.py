"""Where a run stands: everything that must survive a kill besides weights and generators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass
class TrainState:
    """Counters of a run.

    Attributes:
        step: optimizer steps done.
        epoch, batch: the next batch to train on.
        skipped: samples at the beginning of this epoch that are in none of its batches: the run has seen
            them in batches of another size, before it was resumed.
        best_score: of the best validation so far.
        best_step: when that was.
        validations_without_gain: since then.
        bad_steps: steps left out because loss or gradient was not finite.
        evaluation_due: the segment is trained but not yet validated.
        stopped_early: patience ran out.
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
        """Take note of a validation; tell whether it is the best so far."""
        if self.best_score is None or score > self.best_score:
            self.best_score, self.best_step, self.validations_without_gain = score, self.step, 0
            return True
        self.validations_without_gain += 1
        return False

    def forget_best_score(self) -> None:
        """Let the next validation be the best one, and count patience from it."""
        self.best_score, self.validations_without_gain, self.stopped_early = None, 0, False

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for field in fields(self):
            setattr(self, field.name, state[field.name])
