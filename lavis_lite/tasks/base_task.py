"""What a task is: the meaning of a training step and of an evaluation, without loop, files or globals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from lavis_lite.common.batch import FILLER, Batch, StepOutput
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import suggest
from lavis_lite.metrics.selection import main_metric, metric_names_in

Record = dict[str, Any]
# Keys that only the samples of one kind of data set have -> the task for it.
TASK_OF_KEY = {
    "n_answers": "vqa",
    "question_id": "vqa",
    "label": "multimodal_classification",
    "index": "retrieval",
    "references": "captioning",
    "text_input": "captioning",
}


class EvaluationBatches(Protocol):
    """This rank's share of a split; may be gone through more than once."""

    dataset: Any

    def __iter__(self) -> Iterator[dict[str, Any]]: ...


class BaseTask:
    """A task that a config can name.

    A subclass declares its keys of the ``run`` section in a `Config` that extends `RunConfig`.
    `train_step` serves every model whose forward returns a mapping with "loss".
    """

    Config: ClassVar[type[RunConfig]] = RunConfig
    # What evaluation computes, where that is known beforehand: `best_metric` must be made of it.
    metric_names: ClassVar[tuple[str, ...] | None] = None
    # What "best" means where the config does not say; None: nothing is best.
    default_best_metric: ClassVar[str | None] = None
    # Keys of a batch that say that it was made for another task, although this one could use it.
    foreign_keys: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @property
    def best_metric(self) -> str | None:
        """The metric, or combination of metrics, that decides which checkpoint is best."""
        return self.config.best_metric or self.default_best_metric

    def check(self) -> None:
        """Refuse what cannot work on this machine, before anything is built.

        Raises:
            ConfigError: for example `best_metric` names a metric that cannot be computed here.
        """
        if self.best_metric is None or not self.config.valid_splits:
            return
        names = self.names_in_best_metric()
        if self.metric_names is None:
            return
        for name in names:
            if name not in self.metric_names:
                raise ConfigError(
                    f"run.best_metric is {self.best_metric!r}, but this task computes no {name!r}."
                    f"{suggest(name, self.metric_names)} It computes {', '.join(self.metric_names)}."
                )

    def names_in_best_metric(self) -> list[str]:
        """Return the metrics that `best_metric` is made of, none where nothing is best.

        Raises:
            ConfigError: it cannot be read.
        """
        try:
            return metric_names_in(self.best_metric) if self.best_metric else []
        except ValueError as error:
            raise ConfigError(f"run.best_metric: {error}") from error

    def prepare(self, model: nn.Module) -> None:
        """Hand the model what the ``run`` section says about its use.

        Raises:
            ConfigError: the model cannot be used so.
        """

    def check_batch(self, samples: Mapping[str, Any], source: str) -> None:
        """Refuse a batch that was made for another task.

        Args:
            samples: a batch of training or evaluation.
            source: where it comes from, as errors name it.

        Raises:
            ConfigError: it has keys of another task; the message names that task.
        """
        foreign = next((key for key in self.foreign_keys if key in samples), None)
        if foreign is not None:
            raise ConfigError(self.misfit(samples, source))

    def misfit(self, samples: Mapping[str, Any], source: str, missing: str | None = None) -> str:
        """Say that `samples` do not fit this task, and which task they fit.

        Args:
            samples: a batch, or a record of an evaluation.
            source: where it comes from.
            missing: the key that this task or its model needs.
        """
        needs = f"needs {missing!r}" if missing else "does not read such samples"
        other = next((task for key, task in TASK_OF_KEY.items() if key in samples), None)
        remedy = f"set run.task={other} and a model for it, or choose another data set"
        if other is None or other == self.config.task:
            remedy = "give it in the data set, or choose the task and the model that the data set is for"
        listed = ", ".join(samples) or "nothing"
        return f"{source}: the task {self.config.task} {needs}, but the data set gives {listed}; {remedy}."

    def warnings_about(self, dataset: Any) -> list[str]:
        """Return what is worth knowing of an evaluation on `dataset` before the training."""
        return []

    def train_on_batch(self, model: nn.Module, batch: Batch) -> StepOutput:
        """Return what `train_step` makes of a batch; the runner calls this.

        A task overrides `train_step`, which sees plain samples, as in LAVIS: the keys of the data set,
        and "epoch", "iters" (batches done in this epoch) and "num_iters_per_epoch".
        """
        samples = dict(batch.samples)
        if batch.position is not None:
            epoch, iters, batches = batch.position
            samples |= {"epoch": epoch, "iters": iters, "num_iters_per_epoch": batches}
        if batch.filler:
            samples[FILLER] = True
        output = self.train_step(model, samples)
        if isinstance(output, tuple):
            output = StepOutput(*output)
        weight = float(batch_size(samples)) if output.weight is None else output.weight
        return replace(output, weight=0.0 if batch.filler else weight)

    def train_step(
        self, model: nn.Module, samples: Mapping[str, Any]
    ) -> StepOutput | tuple[Tensor, Mapping[str, Tensor]]:
        """Return the loss of a batch; LAVIS's form, ``(loss, losses for the log)``, will do.

        The model returns a mapping with "loss", and may add parts of it as "loss_...", a "report" of
        numbers that are not minimized, and "loss_weight", the number of terms that the loss is a mean of.
        """
        output = model(samples)
        losses = {
            name: value.detach()
            for name, value in output.items()
            if name.startswith("loss") and name != "loss_weight" and value is not None
        }
        report = {**losses, **(output.get("report") or {})}
        return StepOutput(output["loss"], report, output.get("loss_weight"))

    def valid_step(self, model: nn.Module, samples: Mapping[str, Any]) -> list[Record]:
        """Return one record a sample, each with "instance_id", of plain values."""
        raise NotImplementedError

    def evaluate(self, model: nn.Module, batches: EvaluationBatches) -> list[Record]:
        """Return the records of this rank's share of a split, each once over all ranks.

        Sample by sample, unless a task needs the split as a whole.
        """
        return [record for samples in batches for record in self.valid_step(model, samples)]

    def compute_metrics(self, records: Sequence[Record], split: str) -> dict[str, Any]:
        """Return metrics by name; notes that are no numbers (which tokenizer, what is missing) may join."""
        return {}

    def score(self, metrics: Mapping[str, Any]) -> float | None:
        """Return the value of `best_metric`: how good `metrics` are, more is better.

        None where nothing is best, or a metric that it is made of was not computed.
        """
        if self.best_metric is None or self.missing_metrics(metrics):
            return None
        return main_metric(metrics, self.best_metric)

    def missing_metrics(self, metrics: Mapping[str, Any]) -> list[str]:
        """Return the names in `best_metric` that `metrics` has no number for."""
        return [
            name for name in self.names_in_best_metric() if not isinstance(metrics.get(name), int | float)
        ]

    def results(self, records: Sequence[Record]) -> list[Record]:
        """Return what goes into the result file of a split."""
        return list(records)


def batch_size(samples: Mapping[str, Any]) -> int:
    """Return how many samples a batch holds."""
    image = samples.get("image")
    return len(image) if image is not None else len(next(iter(samples.values())))
