"""Classes of images, of images with texts, of pairs of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from lavis_lite.common.registry import registry
from lavis_lite.tasks.base_task import BaseTask, Record

COLUMNS = ("instance_id", "image_id", "text_input", "image_path")


@registry.register_task("multimodal_classification")
class MultimodalClassificationTask(BaseTask):
    """Train on labels; the class of the largest logit must be the label."""

    default_best_metric: ClassVar[str] = "agg_metrics"
    metric_names: ClassVar[tuple[str, ...]] = ("agg_metrics",)

    def valid_step(self, model: nn.Module, samples: Mapping[str, Any]) -> list[Record]:
        """Return the class of each sample."""
        output = model.predict(samples)
        classes = output["predictions"].argmax(-1).tolist()
        labels = output["targets"].tolist()
        return [
            {
                **{column: samples[column][index] for column in COLUMNS if column in samples},
                "prediction": prediction,
                "label": label,
            }
            for index, (prediction, label) in enumerate(zip(classes, labels, strict=True))
        ]

    def compute_metrics(self, records: Sequence[Record], split: str) -> dict[str, Any]:
        """Return the accuracy, "agg_metrics", in percent."""
        if not records:
            return {}
        right = sum(record["prediction"] == record["label"] for record in records)
        return {"agg_metrics": 100 * right / len(records)}
