"""Evaluating a split: every sample exactly once over all ranks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from lavis_lite.common import distributed
from lavis_lite.common.batch import BadSample, Model
from lavis_lite.common.files import write_json
from lavis_lite.common.logs.progress import Progress
from lavis_lite.common.seeding import seeded_scope
from lavis_lite.common.signals import StoppedError
from lavis_lite.datasets.loading import Concatenated, Samples, eval_loader

if TYPE_CHECKING:
    from lavis_lite.runners.runner_base import RunnerBase

logger = logging.getLogger(__name__)
MISSING = "samples_without_image"


def evaluate(runner: RunnerBase, splits: Sequence[str], kind: str) -> dict[str, dict[str, Any]]:
    """Evaluate on `splits`, write results and log lines, and return the metrics by split.

    Args:
        kind: "valid" or "test", as log.jsonl names it.
    """
    all_metrics = {}
    for split in splits:
        started = time.perf_counter()
        with runner.throughput.paused(), runner.eval_weights() as model:
            records, metrics = _evaluate_split(runner, model, split)
        all_metrics[split] = metrics
        if distributed.is_rank_zero():
            folder, epoch = runner.folder, runner.segment
            results = folder.result_file(split, epoch if kind == "valid" else None)
            write_json(runner.task.results(records), results)
            write_json(records, folder.results / f"{split}_report.json")
            runner.log.write(kind, runner.state.step, metrics, split=split, epoch=epoch)
            numbers = ", ".join(f"{k} {v:.3f}" for k, v in metrics.items() if isinstance(v, float))
            seconds = time.perf_counter() - started
            logger.info("%s: %d samples in %.0f s. %s", split, len(records), seconds, numbers)
    return all_metrics


class EvaluationBatches:
    """The samples of this rank's share of a split, on the device; can be iterated more than once.

    Attributes:
        dataset: the whole split.
        unreadable: samples that could not be read.
    """

    def __init__(
        self,
        loader: DataLoader,
        dataset: Samples,
        title: str,
        device: torch.device,
        between_batches: Callable[[], None],
    ) -> None:
        self.dataset = dataset
        self.unreadable: set[BadSample] = set()
        self._loader = loader
        self._title = title
        self._device = device
        self._between_batches = between_batches

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with Progress(len(self), self._title, enabled=distributed.is_rank_zero()) as progress:
            for batch in distributed.start_workers(self._loader):
                self._between_batches()
                self.unreadable.update(batch.bad_samples)
                if batch.samples:
                    yield batch.to(self._device).samples
                progress.advance()


def _evaluate_split(
    runner: RunnerBase, model: Model, split: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the records of `split` in the data set's order, and its metrics.

    The global generators are restored, so that evaluating changes nothing in training.
    """
    task, config, dataset = runner.task, runner.config, joined(runner.datasets[split])
    loader = eval_loader(
        dataset,
        config.batch_size_eval,
        seed=config.seed,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        num_workers=config.num_workers,
    )
    batches = EvaluationBatches(
        loader, dataset, f"evaluate {split}", runner.device, lambda: _stop_if_asked(runner)
    )
    model.eval()
    with seeded_scope(config.seed, "evaluation"), torch.inference_mode():
        with runner.precision.autocast():
            records = task.evaluate(model, batches)
        shares = distributed.gather_objects(records)
        records = sorted((r for share in shares for r in share), key=lambda r: r["instance_id"])
        missing = sorted(bad for share in distributed.gather_objects(batches.unreadable) for bad in share)
        metrics = metrics_on_one_rank(task, dataset, records, split)
    for bad in missing if distributed.is_rank_zero() else []:
        logger.warning("%s: sample %d has no image: %s", split, bad.index, bad.reason)
    if missing:
        metrics[MISSING] = [bad.index for bad in missing]
    return records, metrics


def _stop_if_asked(runner: RunnerBase) -> None:
    """Interrupt a validation on a stop signal; the resumed run repeats it.

    Several ranks can do so only if the state is saved: to save it, all would have to stop here.
    """
    signal = runner.signals.received
    saved = distributed.world_size() == 1 or runner.saved_state.get("step") == runner.state.step
    if signal is not None and saved:
        raise StoppedError(signal)


def metrics_on_one_rank(
    task: Any, dataset: Samples, records: list[dict[str, Any]], split: str
) -> dict[str, Any]:
    """Compute metrics on rank 0 and send them to all ranks; all ranks raise its error, if any."""
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


def joined(datasets: Sequence[Samples]) -> Samples:
    """Return the data sets of a split as one."""
    return datasets[0] if len(datasets) == 1 else Concatenated(datasets)
