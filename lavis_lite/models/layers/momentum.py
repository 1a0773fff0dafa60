"""Slow copies of modules, and queues of the features that they made (paper section 3.2, ITC)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

SUFFIX = "_m"


def add_momentum_copies(model: nn.Module, names: tuple[str, ...]) -> None:
    """Give `model` a copy ``<name>_m`` of each of its parts; copies do not train and stay deterministic."""
    for name in names:
        twin = copy.deepcopy(getattr(model, name))
        setattr(model, name + SUFFIX, twin.requires_grad_(False).eval())


@torch.no_grad()
def update_momentum_copies(model: nn.Module, names: tuple[str, ...], momentum: float) -> None:
    """Move every copy towards its original: copy = momentum * copy + (1 - momentum) * original."""
    originals: list[Tensor] = []
    copies: list[Tensor] = []
    for name in names:
        originals += getattr(model, name).parameters()
        copies += getattr(model, name + SUFFIX).parameters()
    torch._foreach_lerp_(copies, originals, 1.0 - momentum)


class FeatureQueues:
    """The queues of a model: buffers of the published names, filled in turn.

    ``image_queue`` and ``text_queue`` are (embed_dim, queue_size), ``queue_ptr`` (1,) is where the
    next features go, and ``idx_queue`` (1, queue_size) holds their image ids, if there are any.
    Features wait in `pending` until `flush`, for the backward pass still reads the queues.
    """

    def __init__(self, model: nn.Module, embed_dim: int, queue_size: int, with_ids: bool) -> None:
        self.model = model
        self.queue_size = queue_size
        self.with_ids = with_ids
        self.pending: list[tuple[Tensor, Tensor, Tensor | None]] = []
        for name in ("image_queue", "text_queue"):
            start = nn.functional.normalize(torch.randn(embed_dim, queue_size), dim=0)
            model.register_buffer(name, start)
        if with_ids:
            model.register_buffer("idx_queue", torch.full((1, queue_size), -100))
        model.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def push(self, image_features: Tensor, text_features: Tensor, ids: Tensor | None = None) -> None:
        """Let features (items, embed_dim), and ids (items,), wait for `flush`."""
        self.pending.append((image_features.detach(), text_features.detach(), ids))

    @torch.no_grad()
    def flush(self) -> None:
        """Write what waits over the oldest features; it may wrap around the end."""
        model = self.model
        for image_features, text_features, ids in self.pending:
            skipped = max(0, len(image_features) - self.queue_size)
            count = torch.arange(skipped, len(image_features), device=model.queue_ptr.device)
            slots = (model.queue_ptr + count) % self.queue_size
            model.image_queue[:, slots] = image_features[skipped:].T.to(model.image_queue.dtype)
            model.text_queue[:, slots] = text_features[skipped:].T.to(model.text_queue.dtype)
            if ids is not None:
                model.idx_queue[0, slots] = ids[skipped:]
            model.queue_ptr.copy_((model.queue_ptr + len(image_features)) % self.queue_size)
        self.drop()

    def drop(self) -> None:
        """Forget what waits."""
        self.pending.clear()
