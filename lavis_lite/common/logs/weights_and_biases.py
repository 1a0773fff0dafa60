"""Sends the numbers of a run to Weights & Biases (the extra ``wandb``)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class WandbWriter:
    """Sends numbers to a project of Weights & Biases; a resumed run continues its curves there.

    Without a connection, ``WANDB_MODE=offline`` keeps them in the run folder until ``wandb sync`` sends them.

    Args:
        folder: of the run; its path makes the run's id.
        project: of Weights & Biases.
        settings: shown beside the curves.
    """

    def __init__(self, folder: Path, project: str, settings: Mapping[str, Any]) -> None:
        import wandb

        name = str(Path(folder).resolve())
        self._run = wandb.init(
            project=project,
            name=Path(folder).name,
            id=hashlib.sha256(name.encode()).hexdigest()[:16],
            resume="allow",
            dir=str(folder),
            config=dict(settings),
        )
        # Steps of a run that was killed are logged again, which its own step counter would refuse.
        self._run.define_metric("*", step_metric="optimizer_step")

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Add a point at `step` for each of `values`."""
        self._run.log({**values, "optimizer_step": step})

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()
