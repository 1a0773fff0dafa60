"""Tasks by name: ``registry.get_task_class("captioning")``."""

import logging
from typing import Any

from lavis_lite.common.batch import StepOutput
from lavis_lite.tasks import captioning, classification, pretrain, retrieval, vqa
from lavis_lite.tasks.base_task import BaseTask

__all__ = [
    "BaseTask",
    "StepOutput",
    "captioning",
    "classification",
    "pretrain",
    "retrieval",
    "vqa",
]


def _train_step(loss: Any, weight: Any, report: Any) -> StepOutput:
    return StepOutput(loss, report, weight)


def __getattr__(name: str) -> Any:
    if name == "TrainStep":
        message = "lavis_lite.tasks.TrainStep is now called StepOutput(loss, report, weight)."
        logging.getLogger(__name__).warning(message)
        return _train_step
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
