"""Visual question answering, with the metric of each benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from lavis_lite.common.batch import Model
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import registry
from lavis_lite.common.settings import AnswerSettings
from lavis_lite.metrics.vqa import direct_answer_accuracy, normalize_answer, vqa_metrics
from lavis_lite.tasks.base_task import BaseTask, EvaluationBatches, Record, check_lengths, columns_of

COLUMNS = ("instance_id", "question_id", "references", "question_type", "image_path")


@registry.register_task("vqa")
class VQATask(BaseTask):
    """Train on answers; answer each question by ranking a list of answers, or by generating."""

    @dataclass
    class Config(AnswerSettings, RunConfig):
        """The run section of question answering: also every field of `AnswerSettings`.

        Attributes:
            prompt: text around a question, as "Question: {} Answer:"; None for the question alone.
        """

        prompt: str | None = None

        def check(self) -> list[tuple[str, str]]:
            """Return (key, error) of each invalid value."""
            errors = [*RunConfig.check(self), *AnswerSettings.check(self)]
            if self.prompt is not None and "{}" not in self.prompt:
                errors.append(("prompt", "needs {} where the question goes."))
            return errors

    default_best_metric: ClassVar[str | None] = "agg_metrics"
    metric_names: ClassVar[tuple[str, ...]] = ("agg_metrics",)
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._answer_list: Sequence[str] | None = None

    def prepare(self, model: Model) -> None:
        """Check that the model can generate answers as long as the run asks for.

        Raises:
            ConfigError: lengths that do not fit the positions of the model.
        """
        if self.config.inference_method == "generate":
            check_lengths(model, self.config.max_len, self.config.min_len, prompt=1)

    def evaluate(self, model: Model, batches: EvaluationBatches) -> list[Record]:
        """Return the answers of this rank's share.

        Raises:
            ConfigError: answers are to be ranked, and the data set has no list of them.
        """
        self._answer_list = getattr(batches.dataset, "answer_list", None)
        if self.config.inference_method == "rank" and not self._answer_list:
            raise ConfigError(
                "run.inference_method is rank, but the data set has no list of answers; set "
                "answer_list of the data set, or run.inference_method=generate."
            )
        return super().evaluate(model, batches)

    def valid_step(self, model: Model, samples: Mapping[str, Any]) -> list[Record]:
        """Return the answer to each question."""
        questions = samples
        if self.config.prompt is not None:
            questions = {
                **samples,
                "text_input": [self.config.prompt.format(q) for q in samples["text_input"]],
            }
        answers = self.answer(model, questions)
        records = columns_of(samples, COLUMNS, len(answers))
        return [
            {**record, "question": question, "answer": answer}
            for record, question, answer in zip(records, samples["text_input"], answers, strict=True)
        ]

    def answer(self, model: Model, samples: Mapping[str, Any]) -> list[str]:
        """Return one answer a question."""
        settings = {field.name: getattr(self.config, field.name) for field in fields(AnswerSettings)}
        return model.predict_answers(samples, answer_list=self._answer_list, **settings)

    def compute_metrics(self, records: Sequence[Record], split: str) -> dict[str, Any]:
        """Return the accuracy of VQA v2's protocol in percent, over all and by type of question."""
        judged = _judged(records)
        if not judged:
            return {}
        types = {
            record["question_id"]: record["question_type"]
            for record in judged
            if record.get("question_type") is not None
        }
        return vqa_metrics(
            {record["question_id"]: record["answer"] for record in judged},
            {record["question_id"]: record["references"] for record in judged},
            question_types=types,
        )

    def results(self, records: Sequence[Record]) -> list[Record]:
        """Return what VQA's evaluation server takes."""
        return [{"question_id": record["question_id"], "answer": record["answer"]} for record in records]


@registry.register_task("gqa")
class GQATask(VQATask):
    """Free answers, right where they equal the one reference after normalisation."""

    @dataclass
    class Config(VQATask.Config):
        """The run section of GQA."""

        inference_method: Literal["rank", "generate"] = "generate"

    config: Config

    def compute_metrics(self, records: Sequence[Record], split: str) -> dict[str, Any]:
        """Return the share of exact answers, in percent."""
        return exact_accuracy(records)


@registry.register_task("video_qa")
class VideoQATask(GQATask):
    """Questions about videos: frames' tokens are joined, the answer must be exact."""

    @dataclass
    class Config(GQATask.Config):
        """The run section of questions about videos."""

        inference_method: Literal["rank", "generate"] = "rank"

    config: Config


@registry.register_task("aok_vqa")
class AOKVQATask(VQATask):
    """A-OKVQA: direct answers, and the choice among four by their likelihood."""

    metric_names: ClassVar[tuple[str, ...]] = ("agg_metrics", "direct_answer", "multiple_choice")
    config: VQATask.Config

    def valid_step(self, model: Model, samples: Mapping[str, Any]) -> list[Record]:
        """Return the answer to each question, and which of its choices is the likeliest."""
        records = super().valid_step(model, samples)
        for index, record in enumerate(records):
            for column in ("choices", "correct_choice_idx", "direct_answers"):
                if column in samples:
                    record[column] = samples[column][index]
        asked = [index for index, record in enumerate(records) if record.get("choices")]
        for index in asked:
            choices = records[index]["choices"]
            one = {
                "image": samples["image"][index : index + 1],
                "text_input": samples["text_input"][index : index + 1],
            }
            number = model.rank_answers(one, choices, len(choices))
            records[index]["chosen"] = choices[int(number)]
        return records

    def compute_metrics(self, records: Sequence[Record], split: str) -> dict[str, Any]:
        """Return "direct_answer", which is "agg_metrics", and "multiple_choice", in percent."""
        metrics = {}
        answered = [record for record in records if record.get("direct_answers")]
        if answered:
            scores = [
                direct_answer_accuracy(record["answer"], record["direct_answers"]) for record in answered
            ]
            metrics["agg_metrics"] = metrics["direct_answer"] = 100 * sum(scores) / len(scores)
        chosen = [
            record
            for record in records
            if record.get("chosen") is not None and record.get("correct_choice_idx") is not None
        ]
        if chosen:
            right = sum(
                record["chosen"] == record["choices"][record["correct_choice_idx"]] for record in chosen
            )
            metrics["multiple_choice"] = 100 * right / len(chosen)
        return metrics

    def results(self, records: Sequence[Record]) -> list[Record]:
        """Return one entry a question, as A-OKVQA's leaderboard takes it once they are keyed by question."""
        return [
            {
                "question_id": record["question_id"],
                "multiple_choice": record.get("chosen", ""),
                "direct_answer": record["answer"],
            }
            for record in records
        ]


def exact_accuracy(records: Sequence[Record]) -> dict[str, Any]:
    """Return the share of answers that equal the most given reference, in percent, over all and by type."""
    judged = _judged(records)
    if not judged:
        return {}
    groups: dict[str, list[bool]] = {}
    for record in judged:
        reference = Counter[str](record["references"]).most_common(1)[0][0]
        right = normalize_answer(record["answer"]) == normalize_answer(reference)
        groups.setdefault("agg_metrics", []).append(right)
        if record.get("question_type") is not None:
            groups.setdefault(f"question: {record['question_type']}", []).append(right)
    return {name: 100 * sum(group) / len(group) for name, group in groups.items()}


def _judged(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.get("references")]
