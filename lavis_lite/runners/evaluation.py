"""Evaluating one split: every sample once over all ranks, none lost, none doubled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lavis_lite.common import distributed
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.logs.progress import Progress
from lavis_lite.common.seeding import seeded_scope
from lavis_lite.datasets.loading import BAD_SAMPLES, Concatenated, eval_loader
from lavis_lite.runners.precision import Precision

logger = logging.getLogger(__name__)
MISSING = "samples_without_image"


class EvaluationBatches:
    """The batches of this rank's share of a split, on the device; may be gone through more than once.

    Attributes:
        dataset: the whole split.
        unreadable: (sample number, reason) of each sample that could not be read.
    """

    def __init__(
        self,
        loader: DataLoader,
        dataset: Dataset,
        title: str,
        to_device: Callable[[Mapping[str, Any]], dict[str, Any]],
        between_batches: Callable[[], None],
    ) -> None:
        self.dataset = dataset
        self.unreadable: set[tuple[int, str]] = set()
        self._loader = loader
        self._title = title
        self._to_device = to_device
        self._between_batches = between_batches

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with Progress(len(self), self._title, enabled=distributed.is_rank_zero()) as progress:
            for samples in distributed.start_workers(self._loader):
                self._between_batches()
                self.unreadable.update(tuple(note) for note in samples.pop(BAD_SAMPLES))
                if samples:
                    yield self._to_device(samples)
                progress.advance()


def evaluate_split(
    task: Any,
    model: nn.Module,
    dataset: Dataset,
    split: str,
    config: RunConfig,
    precision: Precision,
    to_device: Callable[[Mapping[str, Any]], dict[str, Any]],
    between_batches: Callable[[], None] = lambda: None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the records of `split` in the data set's order, and its metrics.

    The global generators are left as they were, so that evaluating changes nothing in training.
    Samples that could not be read are listed in the metrics under "samples_without_image".
    """
    loader = eval_loader(
        dataset,
        config.batch_size_eval,
        seed=config.seed,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        num_workers=config.num_workers,
    )
    batches = EvaluationBatches(loader, dataset, f"evaluate {split}", to_device, between_batches)
    model.eval()
    with seeded_scope(config.seed, "evaluation"), torch.inference_mode():
        with precision.autocast():
            records = task.evaluate(model, batches)
        records = _merge(records)
        missing = sorted(note for notes in distributed.gather_objects(batches.unreadable) for note in notes)
        metrics = metrics_on_one_rank(task, dataset, records, split)
    for index, reason in missing if distributed.is_rank_zero() else []:
        logger.warning("%s: sample %d has no image: %s", split, index, reason)
    if missing:
        metrics[MISSING] = [index for index, _ in missing]
    return records, metrics


def _merge(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all ranks' records in the order of the data set."""
    shares = distributed.gather_objects(records)
    return sorted((record for share in shares for record in share), key=lambda record: record["instance_id"])


def metrics_on_one_rank(
    task: Any, dataset: Dataset, records: list[dict[str, Any]], split: str
) -> dict[str, Any]:
    """Compute metrics on rank 0 and give them to all; an error there is an error everywhere."""
    outcome: dict[str, Any] = {}
    if distributed.is_rank_zero():
        try:
            outcome["metrics"] = task.compute_metrics(records, split)
            if hasattr(dataset, "truth_metrics"):
                outcome["metrics"].update(dataset.truth_metrics(records))
        except Exception as error:
            outcome["error"] = error
    outcome = distributed.broadcast_object(outcome)
    if "error" in outcome:
        raise outcome["error"]
    return outcome["metrics"]


def joined(datasets: list[Dataset]) -> Dataset:
    """Return the data sets of a split as one.

    Raises:
        ConfigError: there is none.
    """
    if not datasets:
        raise ConfigError("run.train_splits: no data set has any of these splits.")
    return datasets[0] if len(datasets) == 1 else Concatenated(datasets)


def plain_numbers(scores: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the metrics of each split without the notes that are no numbers."""
    return {
        split: {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        for split, metrics in scores.items()
    }
