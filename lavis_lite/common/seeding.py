"""Random numbers that depend on what they are drawn for, not on which process draws them or when.

Every sample of every epoch has its own seed, so that neither the number of workers or ranks nor a
resumed run changes how it is augmented.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def key_seed(*key: int | str) -> int:
    """Return a 63-bit seed that depends on every part of `key`.

    >>> key_seed(42, 0, 7) == key_seed(42, 0, 7), key_seed(42, 0, 7) == key_seed(42, 7, 0)
    (True, False)
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def keyed_generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator seeded by `key`."""
    return torch.Generator().manual_seed(key_seed(*key))


def seed_everything(*key: int | str) -> None:
    """Seed the global generators of python, numpy and torch by `key`."""
    seed = key_seed(*key)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def seeded_scope(*key: int | str) -> Iterator[None]:
    """Run a block with all global CPU generators seeded by `key`, and restore them after it.

    Augmentations, also those of a user, draw from the global generators; in this scope they are a
    function of `key`.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = key_seed(*key)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def rng_state() -> dict[str, Any]:
    """Return the state of all global generators, as values that a weights-only load accepts."""
    version, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state()  # numpy's annotation also allows the other form
    name, keys, position, has_gauss, cached = numpy_state
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, keys.tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
