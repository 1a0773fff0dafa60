"""The contract of tasks: a training step and an evaluation, without loop, files or globals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol

from torch import Tensor

from lavis_lite.common.batch import FILLER, Batch, Model, StepOutput
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
    """This rank's share of a split; can be iterated more than once."""

    dataset: Any

    def __iter__(self) -> Iterator[dict[str, Any]]: ...


class BaseTask:
    """A task that a config can name.

    A subclass declares its keys of the ``run`` section in a `Config` that extends `RunConfig`.
    `train_step` serves every model whose forward returns a mapping with "loss".
    """

    Config: ClassVar[type[RunConfig]] = RunConfig
    # Metrics that `best_metric` may name; None if they are not known beforehand.
    metric_names: ClassVar[tuple[str, ...] | None] = None
    # The default of `best_metric`; None saves no best checkpoint.
    default_best_metric: ClassVar[str | None] = None
    # Keys of batches of another task, which this one could read by mistake.
    foreign_keys: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    @property
    def best_metric(self) -> str | None:
        """The metric, or combination of metrics, that decides which checkpoint is best."""
        return self.config.best_metric or self.default_best_metric

    def check(self) -> None:
        """Check the ``run`` section on this machine, before anything is built.

        Raises:
            ConfigError: for example `best_metric` names a metric that cannot be computed here.
        """
        if not self.config.valid_splits:
            return
        for name in self.names_in_best_metric():
            if self.metric_names is not None and name not in self.metric_names:
                raise ConfigError(
                    f"run.best_metric is {self.best_metric!r}, but this task computes no {name!r}."
                    f"{suggest(name, self.metric_names)} It computes {', '.join(self.metric_names)}."
                )

    def names_in_best_metric(self) -> list[str]:
        """Return the metrics that `best_metric` combines.

        Raises:
            ConfigError: it cannot be parsed.
        """
        try:
            return metric_names_in(self.best_metric) if self.best_metric else []
        except ValueError as error:
            raise ConfigError(f"run.best_metric: {error}") from error

    def prepare(self, model: Model) -> None:
        """Apply the ``run`` section to the model.

        Raises:
            ConfigError: the model does not fit it.
        """

    def check_batch(self, samples: Mapping[str, Any], source: str) -> None:
        """Check that a batch was made for this task.

        Args:
            samples: a batch of training or evaluation.
            source: split and data set, for the message.

        Raises:
            ConfigError: it has keys of another task; the message names that task.
        """
        foreign = next((key for key in self.foreign_keys if key in samples), None)
        if foreign is not None:
            raise ConfigError(self.misfit(samples, source))

    def misfit(self, samples: Mapping[str, Any], source: str, missing: str | None = None) -> str:
        """Return the message that `samples` do not fit this task, and which task they fit.

        Args:
            samples: a batch, or a record of an evaluation.
            source: split and data set.
            missing: the key that this task or its model needs.
        """
        needs = f"needs {missing!r}" if missing else "does not read such samples"
        other = next((task for key, task in TASK_OF_KEY.items() if key in samples), None)
        hint = f"set run.task={other} and a model for it, or choose another data set"
        if other is None or other == self.config.task:
            hint = "give it in the data set, or choose the task and the model that the data set is for"
        listed = ", ".join(samples) or "nothing"
        return f"{source}: the task {self.config.task} {needs}, but the data set gives {listed}; {hint}."

    def warnings_about(self, dataset: Any) -> list[str]:
        """Return warnings about an evaluation on `dataset`, to log before training."""
        return []

    def train_on_batch(self, model: Model, batch: Batch) -> StepOutput:
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
        self, model: Model, samples: Mapping[str, Any]
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

    def valid_step(self, model: Model, samples: Mapping[str, Any]) -> list[Record]:
        """Return one record of plain values for each sample, with its "instance_id"."""
        raise NotImplementedError

    def evaluate(self, model: Model, batches: EvaluationBatches) -> list[Record]:
        """Return the records of this rank's share of a split.

        A task that needs the split as a whole, as retrieval does, overrides this.
        """
        return [record for samples in batches for record in self.valid_step(model, samples)]

    def compute_metrics(self, records: Sequence[Record], split: str) -> dict[str, Any]:
        """Return metrics by name; other values (the tokenizer, what is missing) may be among them."""
        return {}

    def score(self, metrics: Mapping[str, Any]) -> float | None:
        """Return the value of `best_metric`, higher is better; None if a metric it needs was not computed."""
        if self.best_metric is None or self.missing_metrics(metrics):
            return None
        return main_metric(metrics, self.best_metric)

    def missing_metrics(self, metrics: Mapping[str, Any]) -> list[str]:
        """Return the names in `best_metric` that `metrics` has no number for."""
        return [
            name for name in self.names_in_best_metric() if not isinstance(metrics.get(name), int | float)
        ]

    def results(self, records: Sequence[Record]) -> list[Record]:
        """Return the content of the result file of a split."""
        return list(records)


def batch_size(samples: Mapping[str, Any]) -> int:
    """Return the number of samples in a batch."""
    image = samples.get("image")
    return len(image) if image is not None else len(next(iter(samples.values())))


def columns_of(samples: Mapping[str, Any], names: Sequence[str], count: int) -> list[Record]:
    """Return a record for each of `count` samples, with those keys of `names` that the batch has."""
    columns = [name for name in names if name in samples]
    return [{name: samples[name][index] for name in columns} for index in range(count)]


def check_lengths(model: Model, max_length: int, min_length: int, prompt: int) -> None:
    """Refuse lengths of texts that the model cannot generate.

    Args:
        max_length: most tokens of a text, its prompt included; ``run.max_len``.
        min_length: fewest tokens; ``run.min_len``.
        prompt: tokens that every text starts with, [DEC] included.

    Raises:
        ConfigError: no room after the prompt, more tokens than positions, or a minimum above the maximum.
    """
    positions = getattr(getattr(model, "text_config", None), "max_position_embeddings", None)
    if positions is not None and max_length > positions:
        raise ConfigError(
            f"run.max_len: {max_length} tokens are more than the {positions} positions of the text model; "
            f"choose at most {positions} (or train a model with more max_position_embeddings)."
        )
    if max_length <= prompt:
        raise ConfigError(
            f"run.max_len: {max_length} tokens leave no room after the prompt "
            f"{getattr(model, 'prompt', '')!r}, which has {prompt} with [DEC]; choose more, or shorten "
            "model.prompt."
        )
    if min_length > max_length:
        raise ConfigError(
            f"run.min_len: {min_length} tokens are more than run.max_len ({max_length}) allows."
        )
