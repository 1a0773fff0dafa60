"""Base of BLIP's classifiers: a head on the first token of a text that is read with its images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite.models.blip_models.blip import BlipBase
from lavis_lite.models.blip_models.blip_outputs import BlipOutput
from lavis_lite.models.blip_models.inputs import checked_labels


def classification_head(width: int, classes: int) -> nn.Sequential:
    """Return a two-layer head; the published checkpoints name its weights ``0.*`` and ``2.*``."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))


class BlipClassifier(BlipBase):
    """A model that classifies samples; a subclass implements `classify`."""

    def classify(self, samples: Mapping[str, Any]) -> Tensor:
        """Return logits (pairs, num_classes)."""
        raise NotImplementedError

    def loss(self, samples: Mapping[str, Any], logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of `logits` (pairs, num_classes) against `targets` (pairs,)."""
        return F.cross_entropy(logits, targets)

    def forward(self, samples: Mapping[str, Any], is_train: bool = True) -> Mapping[str, Any]:
        """Return the loss, or the predictions if `is_train` is false.

        Args:
            samples: what `classify` reads, and "label" (pairs,).
            is_train: if false, "label" may be missing.

        Returns:
            a `BlipOutput` with "loss" and "logits"; or a dict with "predictions", logits (pairs,
            num_classes), and "targets" (pairs,) if there are labels.
        """
        logits = self.classify(samples)
        if not is_train and samples.get("label") is None:
            return {"predictions": logits}
        targets = checked_labels(samples, logits)
        if not is_train:
            return {"predictions": logits, "targets": targets}
        loss = self.loss(samples, logits, targets)
        return BlipOutput(loss=loss, loss_weight=loss.new_full((), len(logits)), logits=logits)

    def predict(self, samples: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Return "predictions", logits (pairs, num_classes), and "targets" (pairs,) if there are labels."""
        return self.forward(samples, is_train=False)
