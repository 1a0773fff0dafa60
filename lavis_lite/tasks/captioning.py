"""Captioning: generate captions and score them against references."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from lavis_lite.common.batch import Model
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import registry
from lavis_lite.common.settings import GenerationKeys, generation_keys_set
from lavis_lite.metrics.caption import (
    NoWordsError,
    available_metrics,
    result_keys,
    score_captions,
    tokenizer_problem,
)
from lavis_lite.tasks.base_task import BaseTask, Record, check_lengths, columns_of

logger = logging.getLogger(__name__)
COLUMNS = ("instance_id", "image_id", "references", "image_path", "domain")


@registry.register_task("captioning")
class CaptionTask(BaseTask):
    """Train on captions, caption the evaluation images, score against the references."""

    @dataclass
    class Config(GenerationKeys, RunConfig):
        """The run section of captioning.

        Generation settings that are None come from the model; those that are set are saved with the
        checkpoint, so that inference makes captions as validation did.

        Attributes:
            metrics: BLEU, METEOR, ROUGE_L, CIDEr, SPICE.
            metric_tokenizer: "java" is COCO's tokenizer, "python" a port; auto is java if installed.
            report_metric: False computes no metrics.
            swapped_image_control: also score every caption against another image's references: the score
                of a model that writes plausible captions without looking at the image.
        """

        metrics: list[str] = field(default_factory=lambda: ["BLEU", "METEOR", "ROUGE_L", "CIDEr"])
        metric_tokenizer: Literal["auto", "java", "python"] = "auto"
        report_metric: bool = True
        swapped_image_control: bool = False

        def check(self) -> list[tuple[str, str]]:
            """Return (key, error) of each invalid value."""
            errors = super().check()
            for name in self.metrics:
                try:
                    result_keys(name)
                except ValueError as error:
                    errors.append(("metrics", str(error)))
            return errors

    default_best_metric: ClassVar[str] = "CIDEr + Bleu_4"
    foreign_keys: ClassVar[tuple[str, ...]] = ("n_answers", "question_id")
    config: Config

    def check(self) -> None:
        """Refuse a `best_metric` that this run will not compute.

        Raises:
            ConfigError: also for a Java tokenizer that is not installed.
        """
        if not self.config.report_metric or not self.config.valid_splits:
            return
        error = tokenizer_problem(self.config.metric_tokenizer)
        if error is not None:
            raise ConfigError(
                f"run.metric_tokenizer is java, but {error} Or set run.metric_tokenizer=python."
            )
        reasons = available_metrics(self.config.metrics)
        computed = {key: reasons[metric] for metric in reasons for key in result_keys(metric)}
        for name in self.names_in_best_metric():
            if name not in computed:
                raise ConfigError(
                    f"run.best_metric is {self.best_metric!r}, but run.metrics computes only "
                    f"{', '.join(computed)}; add {name} to run.metrics or choose another best_metric."
                )
            if computed[name] is not None:
                raise ConfigError(
                    f"run.best_metric is {self.best_metric!r}, but {name} cannot be computed here: "
                    f"{computed[name]} Or choose what needs no Java: run.metrics=[BLEU,ROUGE_L,CIDEr] "
                    f'"run.best_metric={self.default_best_metric}"'
                )

    def prepare(self, model: Model) -> None:
        """Give the model the generation settings of the run.

        Raises:
            ConfigError: lengths that do not fit the prompt or the positions of the model.
        """
        generation = model.inference_settings().get("generation")
        if generation is None:
            return
        settings = {**generation, **generation_keys_set(self.config)}
        check_lengths(
            model, settings["max_length"], settings["min_length"], prompt=getattr(model, "prompt_length", 1)
        )
        model.load_inference_settings({"generation": settings})

    def warnings_about(self, dataset: Any) -> list[str]:
        """Warn if CIDEr is always 0."""
        computed = [key for metric in self.config.metrics for key in result_keys(metric)]
        if not self.config.report_metric or "CIDEr" not in computed or len(dataset) != 1:
            return []
        return [
            "CIDEr of one image is 0 whatever the caption, because it weighs words by how few images have "
            "them. Evaluate on more images, or set run.best_metric=ROUGE_L."
        ]

    def valid_step(self, model: Model, samples: Mapping[str, Any]) -> list[Record]:
        """Return the caption of each image, with its references."""
        captions = model.generate(samples)
        return [
            {"caption": caption, **record}
            for caption, record in zip(captions, columns_of(samples, COLUMNS, len(captions)), strict=True)
        ]

    def compute_metrics(self, records: Sequence[Record], split: str) -> dict[str, Any]:
        """Return COCO's metrics, the tokenizer that they were made with, and what could not be computed."""
        judged = [record for record in records if record.get("references")]
        if not self.config.report_metric or not judged:
            return {}
        references = {record["instance_id"]: record["references"] for record in judged}
        candidates = {record["instance_id"]: record["caption"] for record in judged}
        try:
            scores = score_captions(
                references, candidates, self.config.metrics, tokenizer=self.config.metric_tokenizer
            )
        except NoWordsError:
            reason = f"no reference holds a word to score against ({_images(judged)})."
            logger.warning("%s: %s", split, reason)
            return {"unavailable": dict.fromkeys(self.config.metrics, reason)}
        metrics: dict[str, Any] = dict(scores.scores)
        metrics["tokenizer"] = scores.tokenizer
        if scores.without_words:
            logger.warning(
                "%s: the references of %d images hold no word, so they score 0: %s.",
                split,
                len(scores.without_words),
                _images([record for record in judged if record["instance_id"] in scores.without_words]),
            )
            metrics["references_without_words"] = scores.without_words
        if scores.unavailable:
            metrics["unavailable"] = scores.unavailable
        metrics |= self._by_domain(judged)
        if self.config.swapped_image_control and split in self.config.test_splits and len(judged) > 1:
            metrics["CIDEr_other_image"] = self._swapped_cider(references, candidates)
        return metrics

    def _by_domain(self, judged: Sequence[Record]) -> dict[str, float]:
        """Return CIDEr and SPICE of each domain apart, where records name one (NoCaps does)."""
        names = [name for name in ("CIDEr", "SPICE") if name in self.config.metrics]
        metrics: dict[str, float] = {}
        for domain in sorted({record["domain"] for record in judged if record.get("domain")}):
            of_domain = [record for record in judged if record.get("domain") == domain]
            with suppress(NoWordsError):  # `compute_metrics` names these images
                scores = score_captions(
                    {record["instance_id"]: record["references"] for record in of_domain},
                    {record["instance_id"]: record["caption"] for record in of_domain},
                    names,
                    tokenizer=self.config.metric_tokenizer,
                )
                metrics |= {f"{domain}: {name}": value for name, value in scores.scores.items()}
        return metrics

    def _swapped_cider(self, references: Mapping[Any, list[str]], candidates: Mapping[Any, str]) -> float:
        """Return CIDEr when every image is captioned from another image's pixels."""
        keys = list(candidates)
        half = len(keys) // 2
        swapped = dict(zip(keys, [candidates[key] for key in keys[half:] + keys[:half]], strict=True))
        scores = score_captions(references, swapped, ["CIDEr"], tokenizer=self.config.metric_tokenizer)
        return scores.scores["CIDEr"]

    def results(self, records: Sequence[Record]) -> list[Record]:
        """Return COCO's result format."""
        return [{"image_id": record["image_id"], "caption": record["caption"]} for record in records]


def _images(records: Sequence[Record], shown: int = 5) -> str:
    """Return the images of `records` in words, the first few of many."""
    names = [str(r.get("image_path") or r.get("image_id", r["instance_id"])) for r in records[:shown]]
    return ", ".join(names) + (", ..." if len(records) > shown else "")
