"""Checkpoints that survive: the files of a run, and what is read from anybody's."""

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
    """The checkpoints of a run: the newest few to resume from, and the best.

    One that turns out to be damaged is renamed to ``NAME.damaged``: it is not lost, and it does not
    count.

    Args:
        folder: where they lie.
        keep: how many resumable ones to keep; None for all.
    """

    BEST = "checkpoint_best.pth"

    def __init__(self, folder: Path, keep: int | None = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, content: Mapping[str, Any], step: int) -> Path:
        """Write the state after optimizer step `step`; older ones beyond `keep` go once it is safe."""
        path = self.folder / f"checkpoint_{step:08d}.pth"
        save_atomically(content, path)
        self._clean(path)
        return path

    def save_best(self, content: Mapping[str, Any]) -> Path:
        """Write the weights to use."""
        path = self.folder / self.BEST
        save_atomically(content, path)
        return path

    @property
    def best(self) -> Path:
        """Where the best weights lie, if any were saved."""
        return self.folder / self.BEST

    def steps(self) -> list[Path]:
        """Return the resumable checkpoints, newest first."""
        files = [path for path in self.folder.glob("checkpoint_*.pth") if _step(path) is not None]
        return sorted(files, key=_step, reverse=True)

    def load_newest(
        self, check: Callable[[dict[str, Any]], None] = lambda content: None
    ) -> tuple[Path, dict[str, Any]] | None:
        """Return the newest checkpoint that can be used, with its path, or None.

        Each one that cannot is named in the log and set aside. Rank 0 decides which it is; all ranks
        must call this.

        Args:
            check: raises `CheckpointError` for a content that no run can go on from.

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
                    raise  # the file may well be whole
                self._set_aside(path, error)
        return None

    def _set_aside(self, path: Path, error: CheckpointError) -> None:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        reason = str(error) if str(path) in str(error) else f"{path}: {error}"
        logger.error("%s It is now called %s. Trying the checkpoint before it.", reason, aside.name)

    def _clean(self, newest: Path) -> None:
        """Delete what `newest`, which has just been written, makes superfluous.

        A checkpoint of a later step stays until training has come to that step: it does not count
        against the ones before it.
        """
        for leftover in self.folder.glob(".checkpoint_*.tmp"):
            if not leftover.name.endswith(f".{os.getpid()}.tmp"):
                leftover.unlink(missing_ok=True)
        if self.keep is not None:
            earlier = [path for path in self.steps() if _step(path) < _step(newest)]
            for old in earlier[max(1, self.keep) - 1 :]:
                old.unlink(missing_ok=True)


def _step(path: Path) -> int | None:
    """Return the step in a file's name; None for the best one, and for somebody's copies."""
    match = re.fullmatch(r"checkpoint_(\d+)\.pth", path.name, re.ASCII)
    return int(match[1]) if match else None
