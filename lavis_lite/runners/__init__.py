"""Runners by name: ``registry.get_runner_class("runner_base")``."""

from lavis_lite.runners.runner_base import RunnerBase
from lavis_lite.runners.runner_iter import RunnerIter

__all__ = ["RunnerBase", "RunnerIter"]
