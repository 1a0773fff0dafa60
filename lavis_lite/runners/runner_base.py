"""The training loop: the only one there is. `runner_iter` cuts it into other segments."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from lavis_lite.common import distributed
from lavis_lite.common.checkpoint.store import CheckpointStore
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import write_json
from lavis_lite.common.logs.metrics import MetricLog
from lavis_lite.common.logs.progress import Progress
from lavis_lite.common.logs.weights_and_biases import WandbWriter
from lavis_lite.common.logs.writers import RunLog
from lavis_lite.common.optim import SchedulePlan
from lavis_lite.common.registry import registry
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.common.seeding import rng_state, seed_everything
from lavis_lite.common.signals import StoppedError, StopSignals
from lavis_lite.datasets.loading import BAD_SAMPLES
from lavis_lite.datasets.mixing import train_loader
from lavis_lite.runners.averaging import WeightAverage
from lavis_lite.runners.bad_data import BadSamples, TrainingError
from lavis_lite.runners.counting import RunCounter
from lavis_lite.runners.evaluation import evaluate_split, joined, plain_numbers
from lavis_lite.runners.parallel import SingleProcess, make_strategy
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.rehearsal import Rehearsal, check_output, checkpoint_bytes
from lavis_lite.runners.resuming import ResumePoint, resume
from lavis_lite.runners.state import TrainState
from lavis_lite.runners.throughput import Throughput
from lavis_lite.runners.train_step import StepResult, TrainStep

logger = logging.getLogger(__name__)


@registry.register_runner("runner_base")
class RunnerBase(RunCounter):
    """Train and evaluate, counted in epochs.

    Args:
        config: the ``run`` section.
        task: what a step and an evaluation mean.
        model: on the CPU; moved to `device`.
        datasets: split -> data sets of that split.
        folder: where everything goes.
        sections: the resolved config, kept in the checkpoints.
        device: what to run on.
    """

    def __init__(
        self,
        config: RunConfig,
        task: Any,
        model: nn.Module,
        datasets: Mapping[str, list[Dataset]],
        folder: RunFolder,
        sections: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        self.config = config
        self.task = task
        self.folder = folder
        self.sections = sections
        self.device = device
        self.precision = Precision(config.amp, device)
        self.model = model
        self.average: WeightAverage | None = None
        self.datasets = datasets
        self.state = TrainState()
        self.metrics = MetricLog()
        self.throughput = Throughput()
        self.store = CheckpointStore(folder.checkpoints, keep=config.save_total_limit)
        self.log = RunLog(folder.path, enabled=distributed.is_rank_zero(), further=self._further_writer())
        self.signals = StopSignals()
        self.bad_samples = BadSamples()
        self.saved_state: dict[str, Any] = {}
        self.strategy = SingleProcess(self.model.to(device))

    # ---- training ----

    def prepare(self, point: ResumePoint | None = None) -> None:
        """Build what training needs, and continue from `point`, if there is one.

        Raises:
            ConfigError: there is nothing to train on, or the run cannot continue with these settings.
        """
        self._prepare_training()
        if point is None:
            self.log.start_over()
        else:
            resume(self, point)

    def train(self) -> None:
        """Train to the end, or to where patience runs out, evaluating and saving on the way.

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
                self._log_step(result)
                segment_ends = self._segment_ends()
                self.state.evaluation_due = segment_ends
                if result.stop_requested or self.bad_samples.too_many:
                    self.save()
                    self.bad_samples.check()
                    raise StoppedError(self.signals.received or 15)
                if self._save_is_due(segment_ends):
                    self.save()
                if segment_ends:
                    self.finish_segment()
                    self.strategy.module.train()
                if self.state.stopped_early:
                    logger.info(
                        "No gain in %d validations; stopping early.", self.state.validations_without_gain
                    )
                    break
        if self.config.save_last and self.saved_state != self.state.state_dict():
            self.save()

    def rehearse(self) -> None:
        """Find before the first step what would go wrong later; see `Rehearsal`.

        Raises:
            ConfigError: a data set, a setting, a metric or the disk will not do.
        """
        if self.has_ended:
            return
        started = time.perf_counter()
        check_output(self.folder, checkpoint_bytes(self.model), self.config.save_total_limit)
        Rehearsal(
            self.task,
            self.model,
            self.datasets,
            self.config,
            self.precision,
            self.device,
            self.to_device,
        ).run()
        self.throughput.pause(time.perf_counter() - started)

    def windows(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the batches of each optimizer step, from where the state stands to the end of the run.

        Raises:
            TrainingError: the data gives no batch where one is due.
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

    def train_window(self, window: list[dict[str, Any]]) -> StepResult:
        """Make one optimizer step and move the state on by it."""
        self.throughput.count(window)
        unseen = self.bad_samples.unseen(note for samples in window for note in samples.pop(BAD_SAMPLES))
        place = {"epoch": self.state.epoch, "num_iters_per_epoch": self.batches_per_epoch}
        batches = [
            self.to_device({**samples, **place, "iters": self.state.batch + i})
            for i, samples in enumerate(window)
        ]
        result = self.train_step.step(
            self.task,
            batches,
            self.position,
            self.metrics,
            stop=lambda: self.signals.received is not None,
            bad_samples=len(unseen),
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
            self.state.epoch, self.state.batch, self.state.skipped = self.state.epoch + 1, 0, 0
        if not result.updated:
            self._refuse_bad_steps(result, window)
        return result

    def finish_segment(self) -> None:
        """Validate, keep the best, count patience."""
        if self.config.valid_splits and self.segment % self.config.val_freq == 0:
            try:
                scores = self.evaluate(self.config.valid_splits, kind="valid")
            except StoppedError:
                if self.saved_state != self.state.state_dict():
                    self.save()
                raise
            score = self.task.score(scores[self.config.valid_splits[0]])
            if score is not None:
                if self.state.improves(score):
                    self.save_best(scores)
                patience = self.config.patience
                self.state.stopped_early = (
                    patience is not None and self.state.validations_without_gain >= patience
                )
        self.state.evaluation_due = False

    # ---- evaluation ----

    def evaluate(self, splits: list[str], kind: str) -> dict[str, dict[str, Any]]:
        """Evaluate on `splits`, write results and log lines, and return the metrics by split."""
        all_metrics = {}
        epoch = self.segment if kind == "valid" else None
        for split in splits:
            started = time.perf_counter()
            with self.eval_weights() as model:
                records, metrics = evaluate_split(
                    self.task,
                    model,
                    joined(self.datasets[split]),
                    split,
                    self.config,
                    self.precision,
                    self.to_device,
                    between_batches=self._stop_if_asked,
                )
            all_metrics[split] = metrics
            seconds = time.perf_counter() - started
            self.throughput.pause(seconds)
            if distributed.is_rank_zero():
                self._write_results(records, metrics, split, epoch, kind, seconds)
        return all_metrics

    @contextmanager
    def eval_weights(self) -> Iterator[nn.Module]:
        """Give the whole model as it would be used: with the average of its weights, if one is kept."""
        with self.average.applied() if self.average else nullcontext(), self.strategy.whole_model() as model:
            yield model

    # ---- saving ----

    def save(self) -> None:
        """Write everything that an exact continuation needs."""
        content = {
            **self.train_step.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "state": self.state.state_dict(),
            "data": self.loader.layout,
            "metrics": self.metrics.state_dict(),
            "ranks": distributed.gather_objects(
                {"rng": rng_state(), "bad_samples": sorted(self.bad_samples.numbers)}
            ),
        }
        with self.strategy.whole_model() as model:
            if distributed.is_rank_zero():
                self.store.save({**self._weights(model), **content}, self.state.step)
        self.saved_state = self.state.state_dict()
        distributed.barrier()

    def save_best(self, scores: Mapping[str, Any]) -> None:
        """Write the weights to use."""
        with self.eval_weights() as model:
            if distributed.is_rank_zero():
                step = self.state.step
                self.store.save_best({**self._weights(model), "step": step, "scores": plain_numbers(scores)})
        distributed.barrier()

    def _weights(self, model: nn.Module) -> dict[str, Any]:
        return {
            "model": model.state_dict(),
            "inference": model.inference_settings(),
            "config": dict(self.sections),
            "epoch": self.state.epoch,
        }

    # ---- parts of the above ----

    def _further_writer(self) -> Callable[[], WandbWriter] | None:
        project = self.config.wandb_project
        return partial(WandbWriter, self.folder.path, project, self.sections) if project else None

    def _prepare_training(self) -> None:
        config = self.config
        training = [dataset for split in config.train_splits for dataset in self.datasets[split]]
        self.bad_samples = BadSamples(sum(map(len, training)), config.max_bad_fraction)
        self.loader = train_loader(
            training,
            config.batch_size_train,
            seed=config.seed,
            ratios=config.train_dataset_ratios,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            num_workers=config.num_workers,
            drop_last=config.drop_last,
            pin_memory=self.device.type == "cuda",
            finish=self.model.text_collator(),
        )
        self._warn_of_large_batch(sum(map(len, training)))
        self.batches_per_epoch = self.loader.batches_per_epoch
        if self.batches_per_epoch == 0:
            raise ConfigError("run.train_splits: there is not one sample to train on.")
        self.model.freeze_parts(config.freeze, config.unfreeze_last_vision_layers)
        self.strategy = make_strategy(config.parallel, self.model, self.device)
        if config.compile:
            self.strategy.trained.compile_parts()
        if config.ema_decay is not None:
            self.average = WeightAverage(self.strategy.trained, config.ema_decay)
        plan = SchedulePlan(
            init_lr=config.init_lr,
            min_lr=config.min_lr,
            warmup_lr=config.init_lr / 100 if config.warmup_lr is None else config.warmup_lr,
            warmup_steps=config.warmup_steps,
            decay_rate=config.lr_decay_rate,
            steps_per_epoch=self.steps_per_epoch,
            total_steps=self.total_steps,
        )
        self.train_step = TrainStep(config, self.strategy, plan, self.precision)
        seed_everything(config.seed, distributed.rank())

    def _warn_of_large_batch(self, samples: int) -> None:
        batch = self.config.batch_size_train * distributed.world_size()
        if batch > samples and distributed.is_rank_zero():
            logger.warning(
                "run.batch_size_train: a batch of all processes holds %d samples, but there are only %d: "
                "every step takes all of them.",
                batch,
                samples,
            )

    def to_device(self, samples: Mapping[str, Any]) -> dict[str, Any]:
        """Return `samples` with its tensors on the device."""
        return {
            key: value.to(self.device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for key, value in samples.items()
        }

    def _segment_ends(self) -> bool:
        return self.position % self.steps_per_segment == 0 or self.position >= self.total_steps

    def _save_is_due(self, segment_ends: bool) -> bool:
        every = self.config.save_every_steps
        if every is not None and self.state.step % every == 0:
            return True
        return segment_ends and self.segment % self.config.save_freq == 0

    def _stop_if_asked(self) -> None:
        """Give a validation up when asked to stop; it is made up for by the run that goes on.

        Several ranks can do so only if the state is saved: to save it, all would have to stop here.
        """
        if self.signals.received is None:
            return
        if distributed.world_size() == 1 or self.saved_state.get("step") == self.state.step:
            raise StoppedError(self.signals.received)

    def _log_step(self, result: StepResult) -> None:
        if self.state.step % self.config.log_freq and self.position < self.total_steps:
            return
        values = self.metrics.compute(distributed.sum_over_ranks)
        self.metrics.reset()
        values.update(lr=result.lr, gradient_norm=result.gradient_norm)
        values.update(self.train_step.group_rates())
        values.update(self.throughput.values(self.device))
        self.log.write("train", self.state.step, values, epoch=self.state.epoch)

    def _write_results(
        self,
        records: list[dict[str, Any]],
        metrics: dict[str, Any],
        split: str,
        epoch: int | None,
        kind: str,
        seconds: float,
    ) -> None:
        write_json(self.task.results(records), self.folder.result_file(split, epoch))
        write_json(records, self.folder.results / f"{split}_report.json")
        self.log.write(kind, self.state.step, metrics, split=split, epoch=self.segment)
        numbers = ", ".join(
            f"{name} {value:.3f}" for name, value in metrics.items() if isinstance(value, float)
        )
        logger.info("%s: %d samples in %.0f s. %s", split, len(records), seconds, numbers)

    def _refuse_bad_steps(self, result: StepResult, window: list[dict[str, Any]]) -> None:
        if self.precision.scales_gradients:
            return
        ids = [i for samples in window for i in samples.get("instance_id", [])]
        logger.warning(
            "Step %d left out: loss %s, gradient norm %s; samples %s.",
            self.state.step,
            result.loss,
            result.gradient_norm,
            ids,
        )
        if self.state.bad_steps >= self.config.max_bad_steps:
            self.save()
            raise TrainingError(
                f"{self.state.bad_steps} steps had a loss or gradient that is not finite, the last one at "
                f"step {self.state.step} (loss {result.loss}, gradient norm {result.gradient_norm}) on the "
                f"samples {ids}. The state is saved. Lower run.init_lr, set run.clip_grad_norm, or look at "
                "these samples."
            )
