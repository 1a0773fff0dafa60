"""The task ``capfilt``: the model of the config captions and filters its data set, under the runner."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import nn

from lavis_lite.capfilt import STOPPED_NOTE
from lavis_lite.capfilt.captioner import Captioner
from lavis_lite.capfilt.job import Job
from lavis_lite.capfilt.score_tables import with_threshold
from lavis_lite.capfilt.scorers import Scorers
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.capfilt.sources import from_dataset
from lavis_lite.capfilt.summary import totals_of, warnings_about
from lavis_lite.capfilt.workers import run_job
from lavis_lite.common import distributed
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import registry
from lavis_lite.common.signals import exit_on_signals
from lavis_lite.tasks.base_task import BaseTask, EvaluationBatches, Record

logger = logging.getLogger(__name__)


@registry.register_task("capfilt")
class CapFiltTask(BaseTask):
    """Clean a data set (section 3.3 of the paper).

    The model of the config is the captioner; `scorers` name the filter. The result is in
    ``<output_dir>/cleaned``. Processes share the units of the data set.
    """

    @dataclass
    class Config(RunConfig, CapFiltSettings):
        """Keys of the ``run`` section: those of the runner and of `CapFiltSettings`."""

        test_splits: list[str] = field(default_factory=lambda: ["train"])
        evaluate: bool = True

        def check(self) -> list[tuple[str, str]]:
            """Return (key, error) for each invalid value."""
            errors = RunConfig.check(self) + CapFiltSettings.check(self)
            if not self.evaluate:
                errors.append(("evaluate", "capfilt trains nothing; leave it true."))
            if len(self.test_splits) != 1:
                errors.append(("test_splits", "name the one split to clean."))
            return errors

    config: Config

    def evaluate(self, model: nn.Module, batches: EvaluationBatches) -> list[Record]:
        """Clean the split, together with all other processes.

        SIGTERM and SIGINT end the process, with 143 and 130; the same command continues.

        Raises:
            ConfigError: units that failed again and again; the message names them.
        """
        with exit_on_signals(STOPPED_NOTE, at_once=True):
            job = self._job(model, batches.dataset)
            rank, world_size = distributed.rank(), distributed.world_size()
            output, failed = run_job(job, rank, world_size, show=distributed.is_rank_zero())
            failed = sorted({name for names in distributed.gather_objects(failed) for name in names})
            if failed:
                raise ConfigError(
                    f"{job.output}: {len(failed)} of {len(job.input.units)} units could not be done "
                    f"({', '.join(failed[:5])}); {job.output / 'failed'} says why."
                )
            if distributed.is_rank_zero():
                output.finish([unit.name for unit in job.input.units])
        self._output = output
        return []

    def _job(self, model: nn.Module, dataset: Any) -> Job:
        values = {key.name: getattr(self.config, key.name) for key in fields(CapFiltSettings)}
        settings = with_threshold(CapFiltSettings(**values))
        device = next(model.parameters()).device
        return Job(
            from_dataset(dataset, settings.shard_size),
            Captioner(model, dataset.vis_processor, settings, device),
            Scorers(settings, device),
            settings,
            Path(self.config.output_dir or "") / "cleaned",
        )

    def compute_metrics(self, records: Sequence[Record], split: str) -> dict[str, Any]:
        """Return counts of samples, and the noise ratios: the shares of texts that were dropped."""
        totals = totals_of(self._output.markers().values())
        for warning in warnings_about(totals, self._output.identity):
            logger.warning("%s", warning)
        return {**totals.counts, **totals.noise_ratios()}
