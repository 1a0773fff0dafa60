"""Tasks by name: ``registry.get_task_class("captioning")``."""

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
