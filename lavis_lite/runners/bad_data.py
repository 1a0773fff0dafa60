"""Training samples that cannot be read: counted over all ranks, and limited."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from lavis_lite.common import distributed
from lavis_lite.common.batch import BadSample, Batch

logger = logging.getLogger(__name__)
EXAMPLES_IN_ERRORS = 5


class TrainingError(RuntimeError):
    """Training cannot continue; the message says why and what to look at.

    Args:
        message: the same on all ranks that raise it.
        on_all_ranks: True if every rank raises it at this step, so that one can report it for all.
    """

    def __init__(self, message: str, on_all_ranks: bool = True) -> None:
        super().__init__(message)
        self.on_all_ranks = on_all_ranks


class BadSamples:
    """The unreadable samples that all ranks together have met; equal on every rank.

    Args:
        total: number of training samples.
        max_fraction: share of them that may be unreadable.

    Attributes:
        numbers: of the unreadable samples.
    """

    def __init__(self, total: int = 1, max_fraction: float = 1.0) -> None:
        self.total = total
        self.max_fraction = max_fraction
        self.numbers: set[int] = set()
        self._reasons: dict[int, str] = {}

    def unseen(self, batches: Iterable[Batch]) -> list[BadSample]:
        """Return the bad samples of this rank's `batches` that no rank has met before, each once."""
        bad_samples = {bad.index: bad for batch in batches for bad in batch.bad_samples}
        return [bad for number, bad in bad_samples.items() if number not in self.numbers]

    def share(self, unseen: Sequence[BadSample]) -> None:
        """Add the `unseen` samples of every rank; all ranks call it. Each sample is logged once."""
        for bad in (bad for share in distributed.gather_objects(list(unseen)) for bad in share):
            if bad.index in self.numbers:
                continue
            self.numbers.add(bad.index)
            self._reasons[bad.index] = bad.reason
            if distributed.is_rank_zero():
                logger.warning("Training sample %d cannot be read and is replaced: %s", bad.index, bad.reason)

    @property
    def too_many(self) -> bool:
        """True if more samples are unreadable than the run allows."""
        return len(self.numbers) / self.total > self.max_fraction

    def check(self) -> None:
        """Stop the run if too many samples are unreadable.

        Raises:
            TrainingError: there are more than allowed; the message lists some of them.
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
