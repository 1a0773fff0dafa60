"""The losses of BLIP as pure functions of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100


def lm_loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.1) -> Tensor:
    """Return the mean cross-entropy of the next token (paper section 3.2, LM).

    Args:
        logits: (positions, vocab_size), of the positions *before* each target.
        targets: (positions,) token ids; -100 is ignored.
        label_smoothing: BLIP trains with 0.1.
    """
    return F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, label_smoothing=label_smoothing)


class Candidates(NamedTuple):
    """What each image is contrasted with (or each text): everything in the batch, then the queue.

    Attributes:
        batch: (candidates, embed_dim) momentum features of the batch, of all ranks.
        queue: (embed_dim, queue_size) momentum features of batches before.
    """

    batch: Tensor
    queue: Tensor

    def similarities(self, features: Tensor, temperature: Tensor) -> Tensor:
        """Return (rows, candidates + queue_size) of `features` (rows, embed_dim)."""
        return torch.cat((features @ self.batch.T, features @ self.queue), dim=1) / temperature


class Contrast(NamedTuple):
    """One direction of ITC: similarities, what the momentum model finds, and what is aimed at.

    Each (rows, candidates + queue_size).
    """

    similarities: Tensor
    momentum_similarities: Tensor
    targets: Tensor

    @property
    def loss(self) -> Tensor:
        """Mean cross-entropy against the soft targets."""
        return -(F.log_softmax(self.similarities, dim=1) * self.targets).sum(1).mean()


def contrast(
    features: Tensor,
    momentum_features: Tensor,
    candidates: Candidates,
    targets: Tensor,
    temperature: Tensor,
    alpha: float,
) -> Contrast:
    """Return one direction of ITC with momentum distillation (paper section 3.2, ITC).

    Args:
        features: (rows, embed_dim), of length 1; `momentum_features` likewise.
        candidates: of the other modality.
        targets: (rows, candidates + queue_size), each row sums to 1.
        temperature: a scalar that divides the similarities.
        alpha: share of the momentum model's opinion in the targets.
    """
    similarities = candidates.similarities(features, temperature)
    with torch.no_grad():
        momentum_similarities = candidates.similarities(momentum_features, temperature)
        targets = alpha * F.softmax(momentum_similarities, dim=1) + (1 - alpha) * targets
    return Contrast(similarities, momentum_similarities, targets)


def itc_loss(image_to_text: Contrast, text_to_image: Contrast) -> Tensor:
    """Return the mean of both directions."""
    return (image_to_text.loss + text_to_image.loss) / 2


def shared_targets(ids: Tensor, candidate_ids: Tensor) -> Tensor:
    """Return (rows, candidates): each row's mass shared by the candidates with the row's id.

    Args:
        ids: (rows,); `candidate_ids` (candidates,).
    """
    same = (ids[:, None] == candidate_ids).float()
    return same / same.sum(1, keepdim=True)


def sample_negatives(
    similarities: Tensor, forbidden: Tensor, noise: Tensor, smallest_weight: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Draw one hard negative a row, in proportion to softmax(similarities) (paper section 3.2, ITM).

    Args:
        similarities: (rows, candidates).
        forbidden: (rows, candidates), true on what matches the row.
        noise: (rows, candidates) uniform in [0, 1); decides the draw.
        smallest_weight: added to each candidate's weight.

    Returns:
        the index of each row's negative, and whether there is any; both (rows,). Where there is none,
        the index is that of a match.
    """
    weights = F.softmax(similarities.float(), dim=1) + smallest_weight
    # The largest of log(weight) + Gumbel noise falls on each candidate as often as its weight says.
    tiny = torch.finfo(weights.dtype).tiny
    gumbel = -torch.log((-torch.log(noise.float().clamp(min=tiny))).clamp(min=tiny))
    scores = torch.log(weights.clamp(min=tiny)) + gumbel
    scores = scores.masked_fill(forbidden, -torch.inf)
    return scores.argmax(1), ~forbidden.all(1)


def itm_loss(logits: Tensor, labels: Tensor, counted: Tensor, total: Tensor) -> Tensor:
    """Return the cross-entropy of match and no match, over the pairs that are `counted`.

    Args:
        logits: (pairs, 2).
        labels: (pairs,) 1 for a match.
        counted: (pairs,) false where there was no negative to take.
        total: what the sum is divided by: how many are counted.
    """
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    return torch.where(counted, losses, 0.0).sum() / total


def ramped_alpha(alpha: float, ramp_epochs: float, samples: Mapping[str, Any]) -> float:
    """Return `alpha` as it grows linearly from 0 over the first `ramp_epochs` epochs.

    Args:
        samples: a batch; where it does not say its place in training, alpha is whole.

    >>> [round(ramped_alpha(0.4, 2, {"epoch": epoch, "iters": 50, "num_iters_per_epoch": 100}), 3)
    ...  for epoch in (0, 1, 2)]
    [0.1, 0.3, 0.4]
    """
    if ramp_epochs <= 0 or "epoch" not in samples:
        return alpha
    epochs_done = int(samples["epoch"]) + int(samples["iters"]) / int(samples["num_iters_per_epoch"])
    return alpha * min(1.0, epochs_done / ramp_epochs)
