"""The position of a run: steps, epochs, segments between two evaluations, and the batches to come."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from lavis_lite.common.batch import Batch
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.datasets.mixing import Loader
from lavis_lite.runners.bad_data import TrainingError
from lavis_lite.runners.state import TrainState


class RunCounter:
    """Counts of a runner; `runner_iter` cuts a run into other segments.

    Attributes:
        config: the ``run`` section.
        state: where the run stands.
        loader: of the training batches; an evaluation has none.
        batches_per_epoch: of `loader`; 0 without one.
    """

    config: RunConfig
    state: TrainState
    loader: Loader
    batches_per_epoch: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; an incomplete last window counts."""
        return -(-self.batches_per_epoch // self.config.accum_grad_iters)

    @property
    def position(self) -> int:
        """Optimizer steps that lead to this position in the data with the current settings.

        Equal to ``state.step``, unless the run was resumed with another batch size. The schedule, the
        segments and the end of the run are counted by it.
        """
        remaining = self.batches_of_this_epoch - self.state.batch
        return (self.state.epoch + 1) * self.steps_per_epoch - -(-remaining // self.config.accum_grad_iters)

    @property
    def batches_of_this_epoch(self) -> int:
        """Batches of the epoch that the run is in."""
        return self.loader.batches_after(self.state.skipped) if self.state.skipped else self.batches_per_epoch

    @property
    def steps_per_segment(self) -> int:
        """Optimizer steps between two evaluations."""
        return self.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run, counted as `position`."""
        return self.steps_per_epoch * self.config.max_epoch

    @property
    def last_step(self) -> int:
        """The value of ``state.step`` at the end of the run."""
        return self.state.step + self.total_steps - self.position

    @property
    def has_ended(self) -> bool:
        """True if nothing is left to train."""
        return self.position >= self.total_steps or self.state.stopped_early

    @property
    def at_segment_end(self) -> bool:
        """True if a segment, or the run, is complete."""
        return self.position % self.steps_per_segment == 0 or self.position >= self.total_steps

    @property
    def segment(self) -> int:
        """Number of complete segments; 0 if nothing was trained."""
        if self.state.step == 0 or self.batches_per_epoch == 0:
            return 0
        return -(-self.position // self.steps_per_segment)

    @property
    def save_is_due(self) -> bool:
        """True after every `save_every_steps` steps and every `save_freq` segments."""
        every = self.config.save_every_steps
        if every is not None and self.state.step % every == 0:
            return True
        return self.at_segment_end and self.segment % self.config.save_freq == 0

    def windows(self) -> Iterator[list[Batch]]:
        """Yield the batches of each optimizer step, from the current position to the end of the run.

        Raises:
            TrainingError: the data ends early.
        """
        while not self.has_ended:
            before = self.position
            batches = self.loader.epoch(self.state.epoch, self.state.batch, self.state.skipped)
            while window := list(islice(batches, self.config.accum_grad_iters)):
                yield window
                if self.position >= self.total_steps:
                    return
            if self.position == before:
                raise TrainingError(
                    f"The training data ends at batch {self.state.batch} of epoch {self.state.epoch + 1}, "
                    f"which should have {self.batches_of_this_epoch}. Was it changed while it was read?",
                    on_all_ranks=False,
                )
