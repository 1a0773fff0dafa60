"""Training samples that cannot be read: counted over all ranks, named, and too many of them refused."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from lavis_lite.common import distributed

logger = logging.getLogger(__name__)
EXAMPLES_IN_ERRORS = 5
Note = tuple[int, str]  # number of a sample, and why it cannot be read


class TrainingError(RuntimeError):
    """Training cannot continue; the message says why and what to look at.

    Args:
        message: the same on all ranks that raise it.
        on_all_ranks: whether every rank raises it at this step, so that one may say it for all.
    """

    def __init__(self, message: str, on_all_ranks: bool = True) -> None:
        super().__init__(message)
        self.on_all_ranks = on_all_ranks


class BadSamples:
    """The unreadable samples that all ranks together have met; every rank holds the same.

    Args:
        total: samples of the training data.
        max_fraction: share of them that may be unreadable.

    Attributes:
        numbers: of the unreadable samples.
    """

    def __init__(self, total: int = 1, max_fraction: float = 1.0) -> None:
        self.total = total
        self.max_fraction = max_fraction
        self.numbers: set[int] = set()
        self._reasons: dict[int, str] = {}

    def unseen(self, notes: Iterable[Note]) -> list[Note]:
        """Return those of `notes`, of this rank's batches, that no rank has met before."""
        return [note for note in dict(notes).items() if note[0] not in self.numbers]

    def share(self, notes: Sequence[Note]) -> None:
        """Add what each rank has met (its `unseen`); all ranks call it. Each sample is logged once."""
        for share in distributed.gather_objects(list(notes)):
            for number, reason in share:
                if number in self.numbers:
                    continue
                self.numbers.add(number)
                self._reasons[number] = reason
                if distributed.is_rank_zero():
                    logger.warning("Training sample %d cannot be read and is replaced: %s", number, reason)

    @property
    def too_many(self) -> bool:
        """Whether more samples are unreadable than the run allows."""
        return len(self.numbers) / self.total > self.max_fraction

    def check(self) -> None:
        """Refuse to go on with too many unreadable samples.

        Raises:
            TrainingError: there are too many; some are listed with their reasons.
        """
        if not self.too_many:
            return
        listed = "; ".join(
            self._reasons.get(n, f"sample {n}") for n in sorted(self.numbers)[:EXAMPLES_IN_ERRORS]
        )
        more = "; ..." if len(self.numbers) > EXAMPLES_IN_ERRORS else ""
        raise TrainingError(
            f"{len(self.numbers)} of {self.total} training samples cannot be read, more than "
            f"run.max_bad_fraction ({self.max_fraction:.1%}) allows: {listed}{more}. "
            "run.log names all of them. Mend or remove them, or raise run.max_bad_fraction."
        )
