"""Errors of what a model is given; known to models, and to those that call them."""

from __future__ import annotations


class InputError(ValueError):
    """Something that the model cannot take; the message says what it is and what to give instead."""


class MissingKeyError(InputError):
    """Samples without a key that the model needs.

    Args:
        key: the missing one.
        message: says what the samples hold instead.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key
