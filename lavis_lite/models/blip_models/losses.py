"""The losses of BLIP as pure functions of tensors."""

from __future__ import annotations

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
