"""Training counted in optimizer steps, for data too large to count in epochs."""

from __future__ import annotations

from lavis_lite.common.registry import registry
from lavis_lite.runners.runner_base import RunnerBase


@registry.register_runner("runner_iter")
class RunnerIter(RunnerBase):
    """`max_iters` steps, cut into segments of `iters_per_inner_epoch`."""

    @property
    def position(self) -> int:
        """Optimizer steps done."""
        return self.state.step

    @property
    def steps_per_segment(self) -> int:
        """Optimizer steps between two evaluations."""
        return self.config.iters_per_inner_epoch or self.total_steps

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        assert self.config.max_iters is not None  # `RunConfig.check` requires it
        return self.config.max_iters
