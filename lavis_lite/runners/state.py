"""Where a run stands: everything that must survive a kill besides weights and generators."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass
class TrainState:
    """Counters of a run.

    Attributes:
        step: optimizer steps done.
        epoch, batch: the next batch to train on.
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
    best_score: float | None = None
    best_step: int | None = None
    validations_without_gain: int = 0
    bad_steps: int = 0
    evaluation_due: bool = False
    stopped_early: bool = False

    def improves(self, score: float) -> bool:
        """Take note of a validation; tell whether it is the best so far.

        A score that is not finite is never the best. Of scores of 0, where nothing is learned yet, the
        latest is; for the patience it is no gain.
        """
        gained = math.isfinite(score) and (self.best_score is None or score > self.best_score)
        self.validations_without_gain = 0 if gained else self.validations_without_gain + 1
        if gained or score == self.best_score == 0:
            self.best_score, self.best_step = score, self.step
            return True
        return False

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for field in fields(self):
            setattr(self, field.name, state[field.name])
