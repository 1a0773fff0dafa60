"""Image-text retrieval: find the texts of an image, and the image of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lavis_lite.common import distributed
from lavis_lite.common.batch import Model
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import registry
from lavis_lite.common.settings import RankingSettings
from lavis_lite.metrics.retrieval import CUTOFFS, rank_of_the_best, recalls
from lavis_lite.tasks.base_task import BaseTask, EvaluationBatches, Record


@registry.register_task("retrieval")
class RetrievalTask(BaseTask):
    """Train on ITC and ITM; rank a split's images and texts against each other, by recall at 1, 5 and 10."""

    @dataclass
    class Config(RankingSettings, RunConfig):
        """The run section of retrieval: also every field of `RankingSettings`.

        Attributes:
            shown_candidates: best candidates of each query that the result file lists.
        """

        shown_candidates: int = 5

        def check(self) -> list[tuple[str, str]]:
            """Return (key, error) of each invalid value."""
            errors = [*RunConfig.check(self), *RankingSettings.check(self)]
            if self.shown_candidates < 1:
                errors.append(("shown_candidates", f"must be at least 1, found {self.shown_candidates!r}."))
            return errors

    default_best_metric: ClassVar[str] = "r_mean"
    foreign_keys: ClassVar[tuple[str, ...]] = ("n_answers", "question_id")
    metric_names: ClassVar[tuple[str, ...]] = (
        *(f"{query}_r{cutoff}" for query in ("txt", "img") for cutoff in (*CUTOFFS, "_mean")),
        "r_mean",
    )
    config: Config

    def evaluate(self, model: Model, batches: EvaluationBatches) -> list[Record]:
        """Return a record for each query, all of them on rank 0.

        Raises:
            ConfigError: the model cannot rank, or the split does not say which texts belong to which image.
        """
        dataset = batches.dataset
        if not hasattr(model, "compute_sim_matrix"):
            raise ConfigError(f"{type(model).__name__} cannot rank images and texts; use blip_retrieval.")
        if not hasattr(dataset, "img2txt"):
            raise ConfigError(
                "run.task retrieval evaluates one retrieval data set at a time, found "
                f"{type(dataset).__name__}."
            )
        image_to_text, text_to_image = model.compute_sim_matrix(batches, self.config)
        if not distributed.is_rank_zero():
            return []
        return self._of_images(image_to_text, dataset) + self._of_texts(text_to_image, dataset)

    def _of_images(self, scores: np.ndarray, dataset: Any) -> list[Record]:
        """Return what each image that has texts finds."""
        return [
            {
                "instance_id": image,
                "query": "image",
                "image": str(dataset.image[image]),
                "image_path": _path(dataset, image),
                "references": [dataset.text[text] for text in texts],
                "rank": rank_of_the_best(scores[image], list(texts)),
                "found": [
                    {"text": dataset.text[text], "score": float(scores[image, text]), "right": text in texts}
                    for text in self._best(scores[image])
                ],
            }
            for image, texts in dataset.img2txt.items()
            if len(texts)
        ]

    def _of_texts(self, scores: np.ndarray, dataset: Any) -> list[Record]:
        """Return what each text finds."""
        return [
            {
                "instance_id": len(dataset.image) + text,
                "query": "text",
                "text": dataset.text[text],
                "image": str(dataset.image[image]),
                "rank": rank_of_the_best(scores[text], [image]),
                "found": [
                    {
                        "image": str(dataset.image[other]),
                        "image_path": _path(dataset, other),
                        "score": float(scores[text, other]),
                        "right": other == image,
                    }
                    for other in self._best(scores[text])
                ],
            }
            for text, image in dataset.txt2img.items()
        ]

    def _best(self, scores: np.ndarray) -> list[int]:
        return np.argsort(-scores, kind="stable")[: self.config.shown_candidates].tolist()

    def compute_metrics(self, records: Sequence[Record], split: str) -> dict[str, Any]:
        """Return recalls in percent, under LAVIS's names, and how many queries they are of."""
        ranks: Mapping[str, list[int]] = {
            query: [record["rank"] for record in records if record["query"] == query]
            for query in ("image", "text")
        }
        if not ranks["image"] or not ranks["text"]:
            return {}
        return {
            **recalls(ranks["image"], ranks["text"]),
            "images": len(ranks["image"]),
            "texts": len(ranks["text"]),
        }


def _path(dataset: Any, image: int) -> str:
    return str(Path(getattr(dataset, "image_root", "")) / str(dataset.image[image]))


@registry.register_task("video_retrieval")
class VideoRetrievalTask(RetrievalTask):
    """Retrieval whose images are videos: frames' embeddings are averaged, their tokens joined."""
