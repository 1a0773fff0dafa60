"""Errors about the input of a model, for models and for the code that calls them."""

from __future__ import annotations


class InputError(ValueError):
    """Input that the model cannot use; the message says what it is and what is expected."""


class MissingKeyError(InputError):
    """Samples lack a key that the model needs.

    Args:
        key: the missing key.
        message: what the samples hold instead.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key
