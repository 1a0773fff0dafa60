"""The head of BLIP's classifiers."""

from __future__ import annotations

from torch import nn


def classification_head(width: int, classes: int) -> nn.Sequential:
    """Return a two-layer head; its weights are ``0.*`` and ``2.*``."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))
