"""Training samples that cannot be read: counted, named, and too many of them refused."""

from __future__ import annotations

import logging
from collections.abc import Sequence

logger = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to look at. The state is saved."""


class BadSamples:
    """The unreadable samples of a rank.

    Args:
        total: samples there are.
        max_fraction: share of them that may be unreadable.

    Attributes:
        numbers: of the samples that were found unreadable.
    """

    def __init__(self, total: int = 1, max_fraction: float = 1.0) -> None:
        self.total = total
        self.max_fraction = max_fraction
        self.numbers: set[int] = set()

    def count(self, notes: Sequence[tuple[int, str]]) -> None:
        """Take note of samples (number, reason) that were replaced by others.

        Raises:
            TrainingError: there are too many.
        """
        for number, reason in notes:
            if number not in self.numbers:
                self.numbers.add(number)
                logger.warning("Training sample %d cannot be read and is replaced: %s", number, reason)
        if len(self.numbers) / self.total > self.max_fraction:
            raise TrainingError(
                f"{len(self.numbers)} of {self.total} training samples cannot be read, more than "
                f"run.max_bad_fraction ({self.max_fraction:.1%}) allows. The log names them; the last one: "
                f"{notes[-1][1]}"
            )
