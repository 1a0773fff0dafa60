"""A digest that identifies weights."""

from __future__ import annotations

import hashlib

from torch import nn


def weights_digest(model: nn.Module, prefixes: tuple[str, ...] = ("",)) -> str:
    """Return a digest of the names and float32 values of a model's weights, on any device.

    Args:
        prefixes: only names with one of these prefixes count.
    """
    digest = hashlib.blake2b(digest_size=16)
    for key, tensor in model.state_dict().items():
        if key.startswith(prefixes):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()
