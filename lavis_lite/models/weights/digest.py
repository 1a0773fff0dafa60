"""A short name for weights."""

from __future__ import annotations

import hashlib

from torch import nn


def weights_digest(model: nn.Module, prefixes: tuple[str, ...] = ("",)) -> str:
    """Return a digest of the names and values of a model's weights, whatever device they lie on.

    Args:
        prefixes: how the names begin of those that count; all unless given.
    """
    digest = hashlib.blake2b(digest_size=16)
    for key, tensor in model.state_dict().items():
        if key.startswith(prefixes):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()
