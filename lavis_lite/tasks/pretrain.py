"""Pretraining on image-text pairs; the model's three losses say what is learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.registry import registry
from lavis_lite.tasks.base_task import BaseTask


@registry.register_task("image_text_pretrain")
class ImageTextPretrainTask(BaseTask):
    """Train on pairs. What was learned is measured by the tasks that start from it."""

    @dataclass
    class Config(RunConfig):
        """The run section of pretraining: nothing is evaluated."""

        valid_splits: list[str] = field(default_factory=list)
        test_splits: list[str] = field(default_factory=list)

        def check(self) -> list[tuple[str, str]]:
            """Return (key, error) of each invalid value."""
            named = [key for key in ("valid_splits", "test_splits") if getattr(self, key)]
            return super().check() + [
                (
                    key,
                    "must be empty: pretraining evaluates nothing; finetune, or evaluate by a retrieval run.",
                )
                for key in named
            ]

    config: Config
    foreign_keys: ClassVar[tuple[str, ...]] = ("n_answers", "question_id")
