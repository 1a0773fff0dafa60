"""Texts that were tokenized in a worker of the data loader, not in the training process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


class TokenizedTexts(list[str]):
    """A list of texts with their tokens.

    Attributes:
        input_ids, attention_mask: (texts, length).
        made_for: (max_length, padding) of the tokens; a model that needs others tokenizes again.
    """

    def __init__(
        self, texts: Iterable[str], input_ids: Tensor, attention_mask: Tensor, made_for: tuple[int, str]
    ) -> None:
        super().__init__(texts)
        self.input_ids = input_ids
        self.attention_mask = attention_mask
        self.made_for = made_for

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self), self.input_ids, self.attention_mask, self.made_for)


@dataclass
class TokenizeTexts:
    """Tokenizes the texts of a batch; called last in a data loader's worker.

    Attributes:
        tokenizer: of the model.
        lengths: key of the batch -> number of tokens that its texts are truncated to.
        padding: "longest" or "max_length".
    """

    tokenizer: Any
    lengths: Mapping[str, int]
    padding: str = "longest"

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return `batch` with its texts as `TokenizedTexts`."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns that the process was forked
        texts = {key: batch[key] for key in self.lengths if _are_texts(batch.get(key))}
        return {**batch, **{key: self._tokenized(value, self.lengths[key]) for key, value in texts.items()}}

    def _tokenized(self, texts: list[str], max_length: int) -> TokenizedTexts:
        tokens = self.tokenizer(
            texts, padding=self.padding, truncation=True, max_length=max_length, return_tensors="pt"
        )
        return TokenizedTexts(texts, tokens.input_ids, tokens.attention_mask, (max_length, self.padding))


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)
