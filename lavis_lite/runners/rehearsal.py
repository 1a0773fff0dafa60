"""A rehearsal before training: a few samples of each split go through the task's own code.

It finds in seconds what would fail after hours: a data set that does not fit the task, settings that
do not fit the model, metrics that cannot be computed, a full disk. It works on copies of the task and
the model and restores the generators. All ranks rehearse the same samples, so that all raise the same
error.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader

from lavis_lite.common import distributed
from lavis_lite.common.batch import Batch, Model, Position
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import atomic_writer, first_line
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.common.sample_errors import MissingKeyError
from lavis_lite.common.seeding import rng_state, seeded_scope, set_rng_state
from lavis_lite.datasets.loading import eval_loader
from lavis_lite.datasets.mixing import train_loader
from lavis_lite.runners.evaluation import joined, metrics_on_one_rank
from lavis_lite.runners.first_samples import FirstBatch, FirstSamples, ReadingError, explain
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.text_check import text_warnings

logger = logging.getLogger(__name__)

TRAINING_SAMPLES = 4
EVALUATION_SAMPLES = 2
# None under one of these keys is an error in the data; other values may be unknown.
NEVER_NONE = ("image", "text_input", "answer", "label")


@dataclass
class Rehearsal:
    """The parts of a run, and a trial of them before the first step.

    Attributes:
        task, model: as the run will use them; copies are used here.
        datasets: split -> data sets of that split.
        config: the ``run`` section.
        precision: what the model computes in, and where.
    """

    task: Any
    model: Model
    datasets: Mapping[str, Sequence[Any]]
    config: RunConfig
    precision: Precision

    def run(self) -> None:
        """Compute the loss of a batch of each data set, and evaluate a few samples of each split.

        Raises:
            ConfigError: something would fail later; the message names the split, the data set and the key.
        """
        started = time.perf_counter()
        generators = rng_state()
        try:
            try:
                task, model = copy.deepcopy(self.task), copy.deepcopy(self.model).to(self.precision.device)
            except (TypeError, RuntimeError, AttributeError) as error:
                logger.info("No rehearsal: the task or the model cannot be copied (%s).", first_line(error))
                return
            self._train(task, model)
            for split in dict.fromkeys((*self.config.valid_splits, *self.config.test_splits)):
                self._evaluate(task, model, split)
        finally:
            set_rng_state(generators)
        logger.info(
            "Rehearsal: a few samples of each split went through training and evaluation in %.1f s.",
            time.perf_counter() - started,
        )

    def _train(self, task: Any, model: Model) -> None:
        model.train()
        keys: dict[str, list[str]] = {}
        for split in self.config.train_splits:
            for dataset in self.datasets[split]:
                source = _source(dataset, split)
                batch = self._training_batch(dataset, source)
                _check_samples(task, batch.samples, source)
                if not hasattr(dataset, "shards"):
                    keys[source] = sorted(batch.samples)
                batch = replace(batch.to(self.precision.device), position=Position(0, 0, 1))
                with _explained(task, source, batch.samples), self.precision.autocast():
                    loss = float(task.train_on_batch(model, batch).loss.detach())
                if not math.isfinite(loss):
                    logger.warning("%s: the loss of the first samples is %s.", source, loss)
                with _explained(task, source, {}):
                    warnings = list(text_warnings(dataset, model)) if distributed.is_rank_zero() else []
                for warning in warnings:
                    logger.warning("%s: %s", source, warning)
        if not self.config.train_dataset_ratios:
            _refuse_different_samples(keys)

    def _training_batch(self, dataset: Any, source: str) -> Batch:
        if len(dataset) == 0:
            raise ConfigError(f"{source}: has no samples to train on.")
        if hasattr(dataset, "shuffle_buffer"):
            dataset = copy.copy(dataset)
            dataset.shuffle_buffer = 0  # or thousands of samples are read to draw the first one
        with _explained(self.task, source, {}):
            loader = train_loader(
                [dataset],
                min(self.config.batch_size_train, TRAINING_SAMPLES),
                seed=self.config.seed,
                num_workers=0,
                drop_last=False,
                finish=self.model.text_collator(),
            )
        return self._read(loader.epoch(0), source)

    def _evaluate(self, task: Any, model: Model, split: str) -> None:
        dataset = joined(self.datasets[split])
        source = _source(dataset, split)
        if len(dataset) == 0:
            raise ConfigError(f"{source}: has no samples to evaluate.")
        for warning in task.warnings_about(dataset) if distributed.is_rank_zero() else ():
            logger.warning("%s: %s", source, warning)
        few = FirstSamples.of(dataset, EVALUATION_SAMPLES)
        batch = self._read(iter(eval_loader(few, EVALUATION_SAMPLES, seed=self.config.seed)), source)
        if not batch.samples:
            return  # the first samples cannot be read; the evaluation will list them
        samples = batch.to(self.precision.device).samples
        _check_samples(task, samples, source)
        model.eval()
        with seeded_scope(self.config.seed, "evaluation"), torch.inference_mode():
            with _explained(task, source, samples), self.precision.autocast():
                records = task.evaluate(model, _Batches(few, [samples]))
            first_record = records[0] if records else {}
            # the metrics once: METEOR starts a Java program each time
            if split == (*self.config.valid_splits, *self.config.test_splits)[0]:
                with _explained(task, f"{source}: the metrics", first_record):
                    metrics = metrics_on_one_rank(task, few, records, split)
                if split in self.config.valid_splits:
                    self._check_best_metric(task, metrics, source, whole=len(few) == len(dataset))
            with _explained(task, f"{source}: the results", first_record):
                json.dumps([task.results(records), records])

    def _check_best_metric(self, task: Any, metrics: Mapping[str, Any], source: str, whole: bool) -> None:
        """Refuse a `best_metric` that was not computed; warn if other samples may have it."""
        missing = task.missing_metrics(metrics) if metrics else []
        if not missing:
            return
        reasons = "; ".join(dict.fromkeys(map(str, (metrics.get("unavailable") or {}).values())))
        text = f"{source}: run.best_metric is {task.best_metric!r}, but there is no {missing[0]}. {reasons}"
        if whole:
            raise ConfigError(f"{text} Choose another best_metric, or other valid_splits.")
        logger.warning("%s It was tried on %d samples.", text, EVALUATION_SAMPLES)

    def _read(self, batches: Iterator[Batch], source: str) -> Batch:
        """Return the first batch, read in a worker if the run has any.

        A file that a data set opens and keeps open must not be shared with the workers of the run.
        """
        loader = DataLoader(
            FirstBatch(batches),
            batch_size=None,
            num_workers=1 if self.config.num_workers and FirstBatch.workers_are_forked() else 0,
            worker_init_fn=distributed.leave_signals_to_parent,
            generator=torch.Generator(),
        )
        batch = next(distributed.start_workers(loader))
        if isinstance(batch, ReadingError):
            raise ConfigError(f"{source}: {batch.text}")
        return batch


class _Batches(list[dict[str, Any]]):
    """The batches of a split, as `BaseTask.evaluate` takes them."""

    def __init__(self, dataset: Any, batches: Sequence[dict[str, Any]]) -> None:
        super().__init__(batches)
        self.dataset = dataset


def _check_samples(task: Any, samples: Mapping[str, Any], source: str) -> None:
    for key in NEVER_NONE:
        values = samples.get(key)
        if isinstance(values, list) and None in values:
            index = values.index(None)
            sample = samples["instance_id"][index] if "instance_id" in samples else index
            raise ConfigError(
                f"{source}: the key {key!r} of sample {sample} is None. Fill it in, or leave the sample out."
            )
    task.check_batch(samples, source)


@contextmanager
def _explained(task: Any, source: str, samples: Mapping[str, Any]) -> Iterator[None]:
    """Turn an error of the task, the model or a metric into one sentence that names its source."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    except (KeyError, MissingKeyError) as error:
        key = error.key if isinstance(error, MissingKeyError) else str(error.args[0])
        raise ConfigError(task.misfit(samples, source, missing=key)) from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        logger.debug("%s", source, exc_info=True)
        raise ConfigError(f"{source}: {explain(error)}") from error


def _refuse_different_samples(keys: Mapping[str, list[str]]) -> None:
    """Refuse data sets whose samples cannot be collated into one batch."""
    if len({tuple(names) for names in keys.values()}) > 1:
        listed = "; ".join(f"{source} gives {', '.join(names)}" for source, names in keys.items())
        raise ConfigError(
            f"the training data sets have different samples, which cannot stand in one batch: {listed}. "
            "Leave one out, or set run.train_dataset_ratios: then a batch comes from one data set."
        )


def _source(dataset: Any, split: str) -> str:
    name = getattr(dataset, "name", None)
    return f"split {split!r} of {name}" if name else f"split {split!r}"


def check_output(folder: RunFolder, checkpoint_bytes: int, kept: int | None) -> None:
    """Check that the run folder can be written to and has room for checkpoints; all ranks call it.

    Args:
        checkpoint_bytes: size of one checkpoint.
        kept: checkpoints that the run keeps; None for all.

    Raises:
        ConfigError: the folder cannot be written to, or not even one checkpoint fits.
    """
    error = _output_error(folder, checkpoint_bytes, kept) if distributed.is_rank_zero() else None
    error = distributed.broadcast_object(error)
    if error:
        raise ConfigError(error)


def _output_error(folder: RunFolder, checkpoint_bytes: int, kept: int | None) -> str | None:
    for path in (folder.checkpoints, folder.results):
        test = path / ".rehearsal"
        try:
            with atomic_writer(test) as file:
                file.write(b"rehearsal")
            test.unlink()
        except OSError as error:
            return f"run.output_dir: {path} cannot be written to ({first_line(error)})."
    free = shutil.disk_usage(folder.checkpoints).free
    has_left = f"run.output_dir: {folder.path} has {_size(free)} left"
    if free < checkpoint_bytes:
        return (
            f"{has_left}, but a checkpoint of this run takes about {_size(checkpoint_bytes)}. "
            "Make room, or choose another output_dir."
        )
    # the newest ones, the best, and the one that is being written
    needed = ((kept or 1) + 2) * checkpoint_bytes
    if free < needed:
        logger.warning("%s; the checkpoints of this run may take %s.", has_left, _size(needed))
    return None


def checkpoint_bytes(model: Model) -> int:
    """Return the approximate size of a checkpoint: weights, buffers, and two moments of what trains."""
    tensors = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}.values()
    return sum(t.numel() * t.element_size() * (3 if t.requires_grad else 1) for t in tensors)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
