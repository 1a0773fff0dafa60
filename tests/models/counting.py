"""Counting work: how many images a text transformer projects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lavis_lite.models.layers.med import TextTransformer


@contextmanager
def count_projections(text_model: TextTransformer) -> Iterator[list[int]]:
    """Yield a list that will hold, for each layer, how many images' keys were projected."""
    counts = [0] * len(text_model.layers)

    def counting(index: int):
        def hook(module, arguments, output):
            counts[index] += len(arguments[0])

        return hook

    handles = [
        layer.crossattention.self["key"].register_forward_hook(counting(index))
        for index, layer in enumerate(text_model.layers)
    ]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()
