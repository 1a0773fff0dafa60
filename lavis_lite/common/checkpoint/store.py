"""The checkpoints of a run."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lavis_lite.common import distributed
from lavis_lite.common.checkpoint.file import CheckpointError as CheckpointError
from lavis_lite.common.checkpoint.file import load_file as load_file
from lavis_lite.common.checkpoint.file import save_atomically as save_atomically
from lavis_lite.common.checkpoint.weights import load_strictly as load_strictly
from lavis_lite.common.checkpoint.weights import load_weights as load_weights

logger = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoints of a run: the newest few, to resume from, and the best.

    A damaged checkpoint is renamed to ``NAME.damaged``: it is not lost, but no longer counts.

    Args:
        folder: where they are.
        keep: how many resumable ones to keep; None for all.

    Attributes:
        best: where the best weights are, if any were saved.
    """

    BEST = "checkpoint_best.pth"

    def __init__(self, folder: Path, keep: int | None = 2) -> None:
        self.folder = folder
        self.keep = keep
        self.best = folder / self.BEST

    def save(self, content: Mapping[str, Any], step: int) -> Path:
        """Write the state after optimizer step `step`, then delete older ones beyond `keep`."""
        path = self.folder / f"checkpoint_{step:08d}.pth"
        save_atomically(content, path)
        self._clean(path)
        return path

    def save_best(self, content: Mapping[str, Any]) -> Path:
        """Write the best weights."""
        save_atomically(content, self.best)
        return self.best

    def steps(self) -> list[Path]:
        """Return the resumable checkpoints, newest first."""
        return [path for _, path in sorted(self._numbered(), reverse=True)]

    def load_newest(
        self, check: Callable[[dict[str, Any]], None] = lambda content: None
    ) -> tuple[Path, dict[str, Any]] | None:
        """Return the path and content of the newest usable checkpoint, or None.

        Unusable ones are logged and set aside. Rank 0 decides; all ranks must call this.

        Args:
            check: raises `CheckpointError` for a content that no run can resume from.

        Raises:
            CheckpointError: a checkpoint that is not damaged cannot be read (too little memory, say), or
                another rank cannot read the one that rank 0 has read.
        """
        if not distributed.is_rank_zero():
            path = distributed.broadcast_object(None)
            return None if path is None else (path, load_file(path))
        newest = None
        try:
            newest = self._newest_usable(check)
        finally:
            distributed.broadcast_object(newest[0] if newest else None)
        return newest

    def _numbered(self) -> list[tuple[int, Path]]:
        """Return the resumable checkpoints with their steps; not the best one, nor copies a user made."""
        matches = (
            (re.fullmatch(r"checkpoint_(\d+)\.pth", path.name, re.ASCII), path)
            for path in self.folder.glob("checkpoint_*.pth")
        )
        return [(int(match[1]), path) for match, path in matches if match]

    def _newest_usable(self, check: Callable[[dict[str, Any]], None]) -> tuple[Path, dict[str, Any]] | None:
        for path in self.steps():
            try:
                content = load_file(path)
                if not isinstance(content, dict):
                    raise CheckpointError(f"{path}: holds no state of a run.")
                check(content)
                return path, content
            except CheckpointError as error:
                if isinstance(error.__cause__, MemoryError | PermissionError):
                    raise  # the file may be intact
                renamed = path.with_name(f"{path.name}.damaged")
                path.replace(renamed)
                reason = str(error) if str(path) in str(error) else f"{path}: {error}"
                logger.error("%s It is now called %s. Trying the checkpoint before it.", reason, renamed.name)
        return None

    def _clean(self, newest: Path) -> None:
        """Delete the checkpoints that `newest`, which has just been written, makes superfluous.

        One of a later step stays until training reaches that step, and does not count against earlier ones.
        """
        for leftover in self.folder.glob(".checkpoint_*.tmp"):
            if not leftover.name.endswith(f".{os.getpid()}.tmp"):
                leftover.unlink(missing_ok=True)
        if self.keep is not None:
            steps = self.steps()
            for old in steps[steps.index(newest) + max(1, self.keep) :]:
                old.unlink(missing_ok=True)
