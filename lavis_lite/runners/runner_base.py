"""The training loop. `runner_iter` cuts it into other segments."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from lavis_lite.common import distributed
from lavis_lite.common.batch import Batch, Model, Position
from lavis_lite.common.checkpoint.store import CheckpointStore
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.logs.metrics import MetricLog
from lavis_lite.common.logs.progress import Progress
from lavis_lite.common.logs.weights_and_biases import WandbWriter
from lavis_lite.common.logs.writers import RunLog
from lavis_lite.common.optim import SchedulePlan
from lavis_lite.common.registry import registry
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.common.seeding import seed_everything
from lavis_lite.common.signals import StoppedError, StopSignals
from lavis_lite.datasets.mixing import train_loader
from lavis_lite.runners.averaging import WeightAverage
from lavis_lite.runners.bad_data import BadSamples, TrainingError
from lavis_lite.runners.counting import RunCounter
from lavis_lite.runners.evaluation import evaluate
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.rehearsal import Rehearsal, check_output, checkpoint_bytes
from lavis_lite.runners.resuming import ResumePoint, resume
from lavis_lite.runners.saving import save_best, save_resumable
from lavis_lite.runners.state import TrainState
from lavis_lite.runners.strategies import SingleProcess, make_strategy
from lavis_lite.runners.throughput import Throughput
from lavis_lite.runners.train_step import StepResult, TrainStep

logger = logging.getLogger(__name__)


@registry.register_runner("runner_base")
class RunnerBase(RunCounter):
    """Train and evaluate, counted in epochs.

    Args:
        config: the ``run`` section.
        task: defines a training step and an evaluation.
        model: on the CPU; moved to `device`.
        datasets: split -> data sets of that split.
        folder: where everything is written.
        sections: the resolved config, saved in the checkpoints.
        device: what to run on.
    """

    def __init__(
        self,
        config: RunConfig,
        task: Any,
        model: Model,
        datasets: Mapping[str, Sequence[Any]],
        folder: RunFolder,
        sections: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        self.config = config
        self.task = task
        self.model = model
        self.datasets = datasets
        self.folder = folder
        self.sections = sections
        self.device = device
        self.precision = Precision(config.amp, device)
        self.strategy = SingleProcess(model.to(device))
        self.average: WeightAverage | None = None
        self.state = TrainState()
        self.saved_state: dict[str, Any] = {}
        self.store = CheckpointStore(folder.checkpoints, keep=config.save_total_limit)
        project = config.wandb_project
        wandb = partial(WandbWriter, folder.path, project, sections) if project else None
        self.log = RunLog(folder.path, enabled=distributed.is_rank_zero(), further=wandb)
        self.metrics = MetricLog()
        self.throughput = Throughput()
        self.signals = StopSignals()
        self.bad_samples = BadSamples()

    # ---- training ----

    def prepare(self, point: ResumePoint | None = None) -> None:
        """Build loader, strategy and optimizer, and continue from `point` if there is one.

        Raises:
            ConfigError: there is nothing to train on, or the run cannot continue with these settings.
        """
        config = self.config
        self.loader = self._build_loader()
        self.batches_per_epoch = self.loader.batches_per_epoch
        if self.batches_per_epoch == 0:
            raise ConfigError("run.train_splits: there is not one sample to train on.")
        self.model.freeze_parts(config.freeze, config.unfreeze_last_vision_layers)
        self.strategy = make_strategy(config.parallel, self.model, self.device)
        if config.compile:
            self.strategy.trained.compile_parts()
        if config.ema_decay is not None:
            self.average = WeightAverage(self.strategy.trained, config.ema_decay)
        plan = SchedulePlan.of(config, self.steps_per_epoch, self.total_steps)
        self.train_step = TrainStep(config, self.strategy, plan, self.precision)
        seed_everything(config.seed, distributed.rank())
        if point is None:
            self.log.start_over()
        else:
            resume(self, point)

    def train(self) -> None:
        """Train to the end, or until patience runs out, evaluating and saving on the way.

        Call `prepare` before.

        Raises:
            StoppedError: a signal asked to stop; the state is saved.
            TrainingError: losses that are not finite, too many unreadable images, or data that ends early.
        """
        self.bad_samples.check()
        self.rehearse()
        progress = Progress(
            self.last_step, "train", initial=self.state.step, enabled=distributed.is_rank_zero()
        )
        with self.signals, progress:
            if self.state.evaluation_due:
                self.finish_segment()
            self.strategy.module.train()
            for window in self.throughput.waiting_for(self.windows()):
                result = self.train_window(window)
                progress.advance(loss=result.loss, lr=result.lr)
                self.log_step(result)
                self.stop_if_due(result)
                if self.save_is_due:
                    self.save()
                if self.state.evaluation_due:
                    self.finish_segment()
                    self.strategy.module.train()
                if self.state.stopped_early:
                    break
        if self.config.save_last:
            self.save_changes()

    def rehearse(self) -> None:
        """Try a few samples of each split before the first step; see `Rehearsal`.

        Raises:
            ConfigError: a data set, a setting, a metric or the disk is not usable.
        """
        if self.has_ended:
            return
        with self.throughput.paused():
            check_output(self.folder, checkpoint_bytes(self.model), self.config.save_total_limit)
            Rehearsal(self.task, self.model, self.datasets, self.config, self.precision).run()

    def train_window(self, window: list[Batch]) -> StepResult:
        """Make one optimizer step and move the state on by it."""
        self.throughput.count(window)
        unseen = self.bad_samples.unseen(window)
        epoch, first = self.state.epoch, self.state.batch
        batches = [
            replace(batch.to(self.device), position=Position(epoch, first + number, self.batches_per_epoch))
            for number, batch in enumerate(window)
        ]
        result = self.train_step.run(
            self.task, batches, self.position, self.metrics, self.signals, len(unseen)
        )
        if result.bad_samples:
            self.bad_samples.share(unseen)
        self.state.step += 1
        if result.updated:
            self.strategy.trained.after_step()
            if self.average is not None:
                self.average.update(self.state.step)
        else:
            self.strategy.trained.after_skipped_step()
            self.state.bad_steps += 1
        self.state.batch += len(window)
        if self.state.batch >= self.batches_of_this_epoch:
            self.state.begin_epoch(epoch + 1)
        if not result.updated:
            self._refuse_bad_steps(result, window)
        self.state.evaluation_due = self.at_segment_end
        return result

    def _refuse_bad_steps(self, result: StepResult, window: list[Batch]) -> None:
        if self.precision.scales_gradients:
            return
        ids = [i for batch in window for i in batch.samples.get("instance_id", [])]
        cause = f"loss {result.loss}, gradient norm {result.gradient_norm}"
        logger.warning("Step %d was skipped: %s; samples %s.", self.state.step, cause, ids)
        if self.state.bad_steps >= self.config.max_bad_steps:
            self.save()
            raise TrainingError(
                f"{self.state.bad_steps} steps had a loss or gradient that is not finite, the last one at "
                f"step {self.state.step} ({cause}) on the samples {ids}. The state is saved. Lower "
                "run.init_lr, set run.clip_grad_norm, or look at these samples."
            )

    def stop_if_due(self, result: StepResult) -> None:
        """Save and stop if a signal asked to, or if too many samples are unreadable.

        Raises:
            StoppedError: on a signal.
            TrainingError: on unreadable samples.
        """
        if result.stop_requested or self.bad_samples.too_many:
            self.save()
            self.bad_samples.check()
            raise StoppedError(self.signals.received or 15)

    def finish_segment(self) -> None:
        """Validate, save the best weights, count patience."""
        if self.config.valid_splits and self.segment % self.config.val_freq == 0:
            try:
                scores = self.evaluate(self.config.valid_splits, kind="valid")
            except StoppedError:
                self.save_changes()
                raise
            score = self.task.score(scores[self.config.valid_splits[0]])
            if score is not None:
                if self.state.improves(score):
                    save_best(self, scores)
                without_gain, patience = self.state.validations_without_gain, self.config.patience
                self.state.stopped_early = patience is not None and without_gain >= patience
                if self.state.stopped_early:
                    logger.info("No gain in %d validations; stopping early.", without_gain)
        self.state.evaluation_due = False

    def log_step(self, result: StepResult) -> None:
        """Write a log line every `log_freq` steps and at the end of the run."""
        if self.state.step % self.config.log_freq and self.position < self.total_steps:
            return
        values = self.metrics.compute(distributed.sum_over_ranks)
        self.metrics.reset()
        values.update(lr=result.lr, gradient_norm=result.gradient_norm)
        values.update(self.train_step.group_rates())
        values.update(self.throughput.values(self.device))
        self.log.write("train", self.state.step, values, epoch=self.state.epoch)

    # ---- evaluation ----

    def evaluate(self, splits: list[str], kind: str) -> dict[str, dict[str, Any]]:
        """Evaluate on `splits`, write results and log lines, and return the metrics by split.

        Args:
            kind: "valid" or "test", as log.jsonl names it.
        """
        return evaluate(self, splits, kind)

    @contextmanager
    def eval_weights(self) -> Iterator[Model]:
        """Yield the whole model to evaluate: with the average of its weights, if the run has one."""
        averaged = self.average.applied() if self.average else nullcontext()
        with averaged, self.strategy.whole_model() as model:
            yield model

    # ---- saving ----

    def save_changes(self) -> None:
        """Save, unless the newest checkpoint holds this state."""
        if self.saved_state != self.state.state_dict():
            self.save()

    def save(self) -> None:
        """Write everything that an exact continuation needs."""
        save_resumable(self)
        self.saved_state = self.state.state_dict()

    def _build_loader(self) -> Any:
        config, world_size = self.config, distributed.world_size()
        training = [dataset for split in config.train_splits for dataset in self.datasets[split]]
        samples = sum(map(len, training))
        self.bad_samples = BadSamples(samples, config.max_bad_fraction)
        loader = train_loader(
            training,
            config.batch_size_train,
            seed=config.seed,
            ratios=config.train_dataset_ratios,
            rank=distributed.rank(),
            world_size=world_size,
            num_workers=config.num_workers,
            drop_last=config.drop_last,
            pin_memory=self.device.type == "cuda",
            finish=self.model.text_collator(),
        )
        if config.batch_size_train * world_size > samples and distributed.is_rank_zero():
            logger.warning(
                "run.batch_size_train: a batch of all processes holds %d samples, but there are only %d: "
                "every step takes all of them.",
                config.batch_size_train * world_size,
                samples,
            )
        return loader
