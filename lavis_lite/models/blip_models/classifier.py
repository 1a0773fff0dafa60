"""The head of BLIP's classifiers."""

from __future__ import annotations

from torch import nn

from lavis_lite.models.layers.linear import Linear


def classification_head(width: int, classes: int) -> nn.Sequential:
    """Return a two-layer head; its weights are ``0.*`` and ``2.*``."""
    return nn.Sequential(Linear(width, width), nn.ReLU(), Linear(width, classes))
