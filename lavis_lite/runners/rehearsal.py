"""A rehearsal before the work: a few samples of each split go through the task's own code.

What can be found wrong in a second is found before the hours of training: a data set that does not fit
the task, settings that do not fit the model, metrics that cannot be computed, a full disk. Nothing of it
stays: it works on copies of the task and the model, and puts the generators back.

All ranks rehearse the same samples, so that an error is the same on all of them.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lavis_lite.common import distributed
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import atomic_writer, first_line
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.common.sample_errors import MissingKeyError
from lavis_lite.common.seeding import rng_state, seeded_scope, set_rng_state
from lavis_lite.datasets.loading import BAD_SAMPLES, eval_loader
from lavis_lite.datasets.mixing import train_loader
from lavis_lite.runners.evaluation import joined, metrics_on_one_rank
from lavis_lite.runners.first_samples import FirstBatch, FirstSamples, ReadingError, explain
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.text_check import text_warnings

logger = logging.getLogger(__name__)

TRAINING_SAMPLES = 4
EVALUATION_SAMPLES = 2
# Of these, a missing value is a fault of the data; others may be unknown for a sample.
NEVER_NONE = ("image", "text_input", "answer", "label")


@dataclass
class Rehearsal:
    """What is rehearsed, and with what.

    Attributes:
        task, model: as the run will use them; copies are used here.
        datasets: split -> data sets of that split.
        config: the ``run`` section.
        to_device: moves a batch to `device`.
    """

    task: Any
    model: nn.Module
    datasets: Mapping[str, list[Dataset]]
    config: RunConfig
    precision: Precision
    device: torch.device
    to_device: Callable[[Mapping[str, Any]], dict[str, Any]]

    def run(self) -> None:
        """Train on a batch of each data set without a step, and evaluate a few samples of each split.

        Raises:
            ConfigError: what would go wrong later, with the split, the data set and the key.
        """
        started = time.perf_counter()
        generators = rng_state()
        try:
            try:
                task, model = copy.deepcopy(self.task), copy.deepcopy(self.model).to(self.device)
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

    def _train(self, task: Any, model: nn.Module) -> None:
        model.train()
        keys: dict[str, list[str]] = {}
        for split in self.config.train_splits:
            for dataset in self.datasets[split]:
                source = _source(dataset, split)
                batch = self._training_batch(dataset, model, source)
                _check_batch(task, batch, source)
                if not hasattr(dataset, "shards"):
                    keys[source] = sorted(batch)
                place = {"epoch": 0, "iters": 0, "num_iters_per_epoch": 1}
                with _explained(task, source, batch), self.precision.autocast():
                    step = task.train_step(model, self.to_device({**batch, **place}))
                loss = float(step.loss.detach())
                if not math.isfinite(loss):
                    logger.warning("%s: the loss of the first samples is %s.", source, loss)
                with _explained(task, source, {}):
                    warnings = list(text_warnings(dataset, model)) if distributed.is_rank_zero() else []
                for warning in warnings:
                    logger.warning("%s: %s", source, warning)
        if not self.config.train_dataset_ratios:
            _refuse_different_samples(keys)

    def _training_batch(self, dataset: Any, model: nn.Module, source: str) -> dict[str, Any]:
        if len(dataset) == 0:
            raise ConfigError(f"{source}: has no samples to train on.")
        if hasattr(dataset, "shuffle_buffer"):
            dataset = copy.copy(dataset)
            dataset.shuffle_buffer = 0  # or thousands of samples are read to draw the first from
        with _explained(self.task, source, {}):
            loader = train_loader(
                [dataset],
                min(self.config.batch_size_train, TRAINING_SAMPLES),
                seed=self.config.seed,
                num_workers=0,
                drop_last=False,
                finish=model.text_collator(),
            )
        return self._read(loader.epoch(0), source)

    def _evaluate(self, task: Any, model: nn.Module, split: str) -> None:
        dataset = joined(self.datasets[split])
        source = _source(dataset, split)
        if len(dataset) == 0:
            raise ConfigError(f"{source}: has no samples to evaluate.")
        for warning in task.warnings_about(dataset) if distributed.is_rank_zero() else ():
            logger.warning("%s: %s", source, warning)
        few = FirstSamples.of(dataset, EVALUATION_SAMPLES)
        batch = self._read(iter(eval_loader(few, EVALUATION_SAMPLES, seed=self.config.seed)), source)
        if not batch:
            return  # the first samples cannot be read; the evaluation will list them
        _check_batch(task, batch, source)
        model.eval()
        with seeded_scope(self.config.seed, "evaluation"), torch.inference_mode():
            with _explained(task, source, batch), self.precision.autocast():
                records = task.evaluate(model, _Batches(few, [self.to_device(batch)]))
            with _explained(task, f"{source}: the metrics", records[0] if records else {}):
                metrics = metrics_on_one_rank(task, few, records, split)
            with _explained(task, f"{source}: the results", records[0] if records else {}):
                json.dumps([task.results(records), records])
        if split in self.config.valid_splits[:1]:
            self._check_best_metric(task, metrics, source, whole=len(few) == len(dataset))

    def _check_best_metric(self, task: Any, metrics: Mapping[str, Any], source: str, whole: bool) -> None:
        """Refuse, or where other samples may bring it name, a `best_metric` that is not computed."""
        missing = task.missing_metrics(metrics) if metrics else []
        if not missing:
            return
        reasons = "; ".join(dict.fromkeys(map(str, (metrics.get("unavailable") or {}).values())))
        text = f"{source}: run.best_metric is {task.best_metric!r}, but there is no {missing[0]}. {reasons}"
        if whole:
            raise ConfigError(f"{text} Choose another best_metric, or other valid_splits.")
        logger.warning("%s It was tried on %d samples.", text, EVALUATION_SAMPLES)

    def _read(self, batches: Iterator[dict[str, Any]], source: str) -> dict[str, Any]:
        """Return the first batch, read where the run will read: in a worker, if it has any.

        A file that a data set opens and keeps must not be shared with the workers of the run.
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
        batch.pop(BAD_SAMPLES, None)
        return batch


def check_output(folder: RunFolder, checkpoint_bytes: int, kept: int | None) -> None:
    """Write to the run folder once, and compare the free space with a checkpoint's size; all ranks call it.

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
    for place in (folder.checkpoints, folder.results):
        test = place / ".rehearsal"
        try:
            with atomic_writer(test) as file:
                file.write(b"rehearsal")
            test.unlink()
        except OSError as error:
            return f"run.output_dir: {place} cannot be written to ({first_line(error)})."
    free = shutil.disk_usage(folder.checkpoints).free
    if free < checkpoint_bytes:
        return (
            f"run.output_dir: {folder.path} has {_size(free)} left, but a checkpoint of this run takes about "
            f"{_size(checkpoint_bytes)}. Make room, or choose another output_dir."
        )
    # The newest ones, the best, and the one that is being written.
    needed = ((kept or 1) + 2) * checkpoint_bytes
    if free < needed:
        logger.warning(
            "run.output_dir: %s has %s left; the checkpoints of this run may take %s.",
            folder.path,
            _size(free),
            _size(needed),
        )
    return None


def checkpoint_bytes(model: nn.Module) -> int:
    """Return about how large a checkpoint is: weights, buffers, and two moments of what trains."""
    tensors = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}.values()
    return sum(t.numel() * t.element_size() * (3 if t.requires_grad else 1) for t in tensors)


@dataclass
class _Batches:
    """The batches of one rank's share of a split, as an evaluation takes them."""

    dataset: Any
    batches: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.batches)


def _check_batch(task: Any, batch: Mapping[str, Any], source: str) -> None:
    for key in NEVER_NONE:
        values = batch.get(key)
        if isinstance(values, list) and None in values:
            raise ConfigError(
                f"{source}: the key {key!r} of sample {_instance(batch, values.index(None))} is None. "
                "Fill it in, or leave the sample out."
            )
    task.check_batch(batch, source)


def _instance(batch: Mapping[str, Any], index: int) -> Any:
    numbers = batch.get("instance_id", ())
    return numbers[index] if index < len(numbers) else index


@contextmanager
def _explained(task: Any, source: str, batch: Mapping[str, Any]) -> Iterator[None]:
    """Turn an error of the task, the model or a metric into one sentence that says where it came from."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    except KeyError as error:
        raise ConfigError(task.misfit(batch, source, missing=str(error.args[0]))) from error
    except MissingKeyError as error:
        raise ConfigError(task.misfit(batch, source, missing=error.key)) from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        logger.debug("%s", source, exc_info=True)
        raise ConfigError(f"{source}: {explain(error)}") from error


def _refuse_different_samples(keys: Mapping[str, list[str]]) -> None:
    """Refuse data sets whose samples cannot stand in one batch."""
    if len({tuple(names) for names in keys.values()}) > 1:
        listed = "; ".join(f"{source} gives {', '.join(names)}" for source, names in keys.items())
        raise ConfigError(
            f"the training data sets have different samples, which cannot stand in one batch: {listed}. "
            "Leave one out, or set run.train_dataset_ratios: then a batch comes from one data set."
        )


def _source(dataset: Any, split: str) -> str:
    name = getattr(dataset, "name", None)
    return f"split {split!r} of {name}" if name else f"split {split!r}"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
