"""The task ``capfilt``: the model of the config captions and filters its data set, under the runner."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import nn

from lavis_lite.capfilt.inputs import from_dataset
from lavis_lite.capfilt.models import build_models
from lavis_lite.capfilt.reference import with_threshold
from lavis_lite.capfilt.run import run_capfilt
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.capfilt.stop import leave_on_signals
from lavis_lite.capfilt.summary import totals_of, warnings_about
from lavis_lite.common import distributed
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.logs.progress import Progress
from lavis_lite.common.registry import registry
from lavis_lite.tasks.base_task import BaseTask, EvaluationBatches, Record

logger = logging.getLogger(__name__)


@registry.register_task("capfilt")
class CapFiltTask(BaseTask):
    """Clean a data set (section 3.3 of the paper).

    The model of the config is the captioner; `scorers` name the filter. The result lies in
    ``<output_dir>/cleaned``. Processes share the units of the data set among them.
    """

    @dataclass
    class Config(RunConfig, CapFiltSettings):
        """Keys of the ``run`` section: those of `CapFiltSettings` beside the runner's."""

        test_splits: list[str] = field(default_factory=lambda: ["train"])
        evaluate: bool = True

        def check(self) -> list[tuple[str, str]]:
            """Return complaints about values that no run can honour."""
            complaints = RunConfig.check(self) + CapFiltSettings.check(self)
            if not self.evaluate:
                complaints.append(("evaluate", "capfilt trains nothing; leave it true."))
            if len(self.test_splits) != 1:
                complaints.append(("test_splits", "name the one split that is to be cleaned."))
            return complaints

    config: Config

    def evaluate(self, model: nn.Module, batches: EvaluationBatches) -> list[Record]:
        """Clean the split, as far as other processes do not.

        SIGTERM and SIGINT end the process, with 143 and 130; the same command continues.

        Raises:
            ConfigError: units that failed again and again; they are named.
        """
        with leave_on_signals():
            return self._clean(model, batches)

    def _clean(self, model: nn.Module, batches: EvaluationBatches) -> list[Record]:
        own = {key.name: getattr(self.config, key.name) for key in fields(CapFiltSettings)}
        settings = with_threshold(CapFiltSettings(**own))
        dataset = batches.dataset
        models = build_models(model, dataset.vis_processor, settings, model.device)
        given = from_dataset(dataset, settings.shard_size)
        folder = Path(self.config.output_dir) / "cleaned"
        with Progress(len(given.units), "capfilt", enabled=distributed.is_rank_zero()) as progress:
            output, failed = run_capfilt(
                given,
                models,
                settings,
                folder,
                progress,
                distributed.rank(),
                distributed.world_size(),
            )
        everywhere = sorted({name for names in distributed.gather_objects(failed) for name in names})
        if distributed.is_rank_zero() and not everywhere:
            output.finish()
        if everywhere:
            raise ConfigError(
                f"{folder}: {len(everywhere)} of {len(given.units)} units could not be done "
                f"({', '.join(everywhere[:5])}); {folder / 'failed'} says why."
            )
        self._output = output
        return []

    def compute_metrics(self, records: Sequence[Record], split: str) -> dict[str, Any]:
        """Return counts of samples, and the noise ratios: the shares of texts that were dropped."""
        totals = totals_of(self._output.done().values())
        for warning in warnings_about(totals, self._output.identity):
            logger.warning("%s", warning)
        counts = {key: getattr(totals, key) for key in ("samples", "kept", "filtered", "failed")}
        return {**counts, **self._output.noise_ratios()}
