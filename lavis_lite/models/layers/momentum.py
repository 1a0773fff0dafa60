"""Momentum copies of modules, and queues of the features that they computed (paper section 3.2, ITC)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

SUFFIX = "_m"


def add_momentum_copies(model: nn.Module, names: tuple[str, ...]) -> None:
    """Add to `model` a copy ``<name>_m`` of each of its parts; copies do not train and have no dropout."""
    for name in names:
        momentum_copy = copy.deepcopy(getattr(model, name))
        setattr(model, name + SUFFIX, momentum_copy.requires_grad_(False).eval())


@torch.no_grad()
def update_momentum_copies(model: nn.Module, names: tuple[str, ...], momentum: float) -> None:
    """Move each copy towards its original: copy = momentum * copy + (1 - momentum) * original."""
    originals: list[Tensor] = []
    copies: list[Tensor] = []
    for name in names:
        originals += getattr(model, name).parameters()
        copies += getattr(model, name + SUFFIX).parameters()
    torch._foreach_lerp_(copies, originals, 1.0 - momentum)


class FeatureQueues:
    """The feature queues of a model, as buffers of the model under the published names.

    ``image_queue`` and ``text_queue`` are (embed_dim, queue_size); ``queue_ptr`` (1,) is the column that
    is written next; ``idx_queue`` (1, queue_size), if there is one, holds the features' image ids.
    Features wait until `flush`, because the backward pass still reads the queues.
    """

    def __init__(self, model: nn.Module, embed_dim: int, queue_size: int, with_ids: bool) -> None:
        self.model = model
        self.queue_size = queue_size
        self.waiting: list[tuple[Tensor, Tensor, Tensor | None]] = []
        for name in ("image_queue", "text_queue"):
            features = nn.functional.normalize(torch.randn(embed_dim, queue_size), dim=0)
            model.register_buffer(name, features)
        if with_ids:
            model.register_buffer("idx_queue", torch.full((1, queue_size), -100))
        model.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def push(self, image_features: Tensor, text_features: Tensor, ids: Tensor | None = None) -> None:
        """Let features (items, embed_dim) and ids (items,) wait for `flush`."""
        self.waiting.append((image_features.detach(), text_features.detach(), ids))

    @torch.no_grad()
    def flush(self) -> None:
        """Write the waiting features over the oldest ones, around the end of the queue if need be."""
        pointer = self.model.get_buffer("queue_ptr")
        for image_features, text_features, ids in self.waiting:
            count = len(image_features)
            skipped = max(0, count - self.queue_size)
            columns = (pointer + torch.arange(skipped, count, device=pointer.device)) % self.queue_size
            for name, features in (("image_queue", image_features), ("text_queue", text_features)):
                queue = self.model.get_buffer(name)
                queue[:, columns] = features[skipped:].T.to(queue.dtype)
            if ids is not None:
                self.model.get_buffer("idx_queue")[0, columns] = ids[skipped:]
            pointer.copy_((pointer + count) % self.queue_size)
        self.drop()

    def drop(self) -> None:
        """Forget the waiting features."""
        self.waiting.clear()
