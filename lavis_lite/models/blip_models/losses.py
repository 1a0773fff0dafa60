"""The losses of BLIP as functions (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_lite.models.blip_models.blip_outputs import DecoderOutput
from lavis_lite.models.layers.attention import ImageKeyValues
from lavis_lite.models.layers.med import TextDecoder

IGNORED = -100


def language_model_loss(
    decoder: TextDecoder,
    input_ids: Tensor,
    attention_mask: Tensor,
    labels: Tensor,
    image_kv: list[ImageKeyValues],
    label_smoothing: float,
) -> tuple[DecoderOutput, Tensor, Tensor]:
    """Return the decoder's output on whole texts, the mean cross-entropy, and the number of predicted tokens.

    Args:
        decoder: reads the texts.
        input_ids: (rows, length).
        attention_mask: (rows, length).
        labels: (rows, length), -100 where nothing is predicted.
        image_kv: the images, projected for the decoder.
        label_smoothing: BLIP trains with 0.1.
    """
    hidden = decoder(input_ids, attention_mask, image_kv)
    targets = labels[:, 1:]
    predicted = targets != IGNORED
    # Project to the vocabulary only at labeled positions: it is expensive.
    logits = decoder.head(hidden[:, :-1][predicted])
    loss = F.cross_entropy(
        logits.float(), targets[predicted], ignore_index=IGNORED, label_smoothing=label_smoothing
    )
    return DecoderOutput(hidden, logits, decoder.head), loss, predicted.sum()


class Contrast(NamedTuple):
    """One direction of ITC; each tensor is (rows, candidates + queue_size).

    Attributes:
        similarities: divided by the temperature.
        momentum_similarities: by the momentum model.
        targets: a distribution for each row.
    """

    similarities: Tensor
    momentum_similarities: Tensor
    targets: Tensor


def contrast(
    features: Tensor,
    momentum_features: Tensor,
    candidates: Tensor,
    queue: Tensor,
    targets: Tensor,
    temperature: Tensor,
    alpha: float,
) -> Contrast:
    """Return one direction of ITC with momentum distillation.

    Args:
        features: (rows, embed_dim), of length 1.
        momentum_features: (rows, embed_dim), of the momentum model.
        candidates: (candidates, embed_dim), momentum features of the other modality in the batch.
        queue: (embed_dim, queue_size), those of earlier batches.
        targets: (rows, candidates + queue_size), each row sums to 1.
        temperature: a scalar that divides the similarities.
        alpha: weight of the momentum model's distribution in the targets.
    """
    similarities = torch.cat((features @ candidates.T, features @ queue), dim=1) / temperature
    with torch.no_grad():
        momentum_similarities = (
            torch.cat((momentum_features @ candidates.T, momentum_features @ queue), dim=1) / temperature
        )
        targets = alpha * F.softmax(momentum_similarities, dim=1) + (1 - alpha) * targets
    return Contrast(similarities, momentum_similarities, targets)


def itc_loss(image_to_text: Contrast, text_to_image: Contrast) -> Tensor:
    """Return the mean cross-entropy of both directions."""
    losses = [
        -(F.log_softmax(direction.similarities, dim=1) * direction.targets).sum(1).mean()
        for direction in (image_to_text, text_to_image)
    ]
    return (losses[0] + losses[1]) / 2


def shared_targets(ids: Tensor, candidate_ids: Tensor) -> Tensor:
    """Return (rows, candidates): equal shares of 1 for the candidates that have the row's id.

    Args:
        ids: (rows,).
        candidate_ids: (candidates,).
    """
    same = (ids[:, None] == candidate_ids).float()
    return same / same.sum(1, keepdim=True)


def sample_negatives(
    similarities: Tensor, forbidden: Tensor, noise: Tensor, min_weight: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Draw a hard negative for each row, with probabilities softmax(similarities).

    Args:
        similarities: (rows, candidates).
        forbidden: (rows, candidates), true on matches of the row.
        noise: (rows, candidates) uniform in [0, 1), which decides the draw.
        min_weight: added to the weight of every candidate.

    Returns:
        the index of each row's negative, and whether it has one; both (rows,). Without one, the index is
        that of a match.
    """
    weights = F.softmax(similarities.float(), dim=1) + min_weight
    # log(weight) + Gumbel noise is largest at each candidate with a probability proportional to its weight.
    tiny = torch.finfo(weights.dtype).tiny
    gumbel = -torch.log((-torch.log(noise.float().clamp(min=tiny))).clamp(min=tiny))
    scores = torch.log(weights.clamp(min=tiny)) + gumbel
    scores = scores.masked_fill(forbidden, -torch.inf)
    return scores.argmax(1), ~forbidden.all(1)


def itm_loss(logits: Tensor, labels: Tensor, counted: Tensor, total: Tensor) -> Tensor:
    """Return the cross-entropy of match and no match over the `counted` pairs.

    Args:
        logits: (pairs, 2).
        labels: (pairs,) 1 for a match.
        counted: (pairs,) false if there was no negative to draw.
        total: what the sum is divided by.
    """
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    return torch.where(counted, losses, 0.0).sum() / total


def ramped_alpha(alpha: float, ramp_epochs: float, samples: Mapping[str, Any]) -> float:
    """Return `alpha` as it grows linearly from 0 over the first `ramp_epochs` epochs.

    Early on, the momentum model knows no more than chance, and its opinion would only blur the targets.

    Args:
        alpha: the final value.
        ramp_epochs: may be a fraction; 0 for no ramp.
        samples: a batch with "epoch", "iters" and "num_iters_per_epoch"; without them there is no ramp.

    >>> [round(ramped_alpha(0.4, 2, {"epoch": epoch, "iters": 50, "num_iters_per_epoch": 100}), 3)
    ...  for epoch in (0, 1, 2)]
    [0.1, 0.3, 0.4]
    """
    if ramp_epochs <= 0 or "epoch" not in samples:
        return alpha
    epochs_done = int(samples["epoch"]) + int(samples["iters"]) / int(samples["num_iters_per_epoch"])
    return alpha * min(1.0, epochs_done / ramp_epochs)
