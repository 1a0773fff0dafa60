"""Classification of images, of images with texts, and of pairs of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from lavis_lite.common.batch import Model
from lavis_lite.common.registry import registry
from lavis_lite.tasks.base_task import BaseTask, Record, columns_of

COLUMNS = ("instance_id", "image_id", "text_input", "image_path")


@registry.register_task("multimodal_classification")
class MultimodalClassificationTask(BaseTask):
    """Train on labels; predict the class of the largest logit."""

    default_best_metric: ClassVar[str] = "agg_metrics"
    metric_names: ClassVar[tuple[str, ...]] = ("agg_metrics",)

    def valid_step(self, model: Model, samples: Mapping[str, Any]) -> list[Record]:
        """Return the class of each sample."""
        output = model.predict(samples)
        classes = output["predictions"].argmax(-1).tolist()
        labels = output["targets"].tolist()
        records = columns_of(samples, COLUMNS, len(classes))
        return [
            {**record, "prediction": prediction, "label": label}
            for record, prediction, label in zip(records, classes, labels, strict=True)
        ]

    def compute_metrics(self, records: Sequence[Record], split: str) -> dict[str, Any]:
        """Return the accuracy, "agg_metrics", in percent."""
        if not records:
            return {}
        right = sum(record["prediction"] == record["label"] for record in records)
        return {"agg_metrics": 100 * right / len(records)}
