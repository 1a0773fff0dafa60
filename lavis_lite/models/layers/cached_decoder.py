"""Decoding token by token, with a cache of the tokens read so far."""

from __future__ import annotations

import torch
from torch import Tensor

from lavis_lite.models.layers.attention import ImageKeyValues, SelfAttentionCache
from lavis_lite.models.layers.med import TextDecoder


class CachedDecoder:
    """A `TextDecoder` that reads one token at a time: the `Decoder` of `generation.py`.

    Args:
        decoder: the network.
        image_kv: `TextTransformer.project_image` of the images.
        max_length: maximum tokens of a row, prompt included.
        image_mask: (images, 1, 1, image tokens), true where attention is allowed; None: everywhere.
    """

    def __init__(
        self,
        decoder: TextDecoder,
        image_kv: list[ImageKeyValues],
        max_length: int,
        image_mask: Tensor | None = None,
    ) -> None:
        self.decoder = decoder
        self.image_kv = image_kv
        self.image_mask = image_mask
        images = image_kv[0].keys.shape[0]
        self.cache = SelfAttentionCache(decoder.config, images, max_length, like=image_kv[0].keys)
        self.lengths = torch.zeros(images, dtype=torch.long, device=image_kv[0].keys.device)

    def prefill(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Read prompts (images, longest), padded on the right; return logits (images, vocab_size)."""
        # Padding enters the cache too: its slots are masked until a generated token overwrites them.
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        hidden = self._run(input_ids, positions)
        self.lengths = lengths
        last = hidden[torch.arange(len(lengths), device=lengths.device), lengths - 1]
        return self.decoder.head(last)

    def step(self, token_ids: Tensor) -> Tensor:
        """Append one token to each row (rows,); return logits (rows, vocab_size) of the next."""
        # A full row is finished: what is computed for it is not used.
        positions = self.lengths.clamp(max=self.cache.max_length - 1)
        hidden = self._run(token_ids[:, None], positions[:, None])
        self.lengths = self.lengths + 1
        return self.decoder.head(hidden[:, -1])

    def select(self, rows: Tensor) -> None:
        """Continue with `rows`; those of an image must stay adjacent, and equally many for each image."""
        self.cache.select(rows)
        self.lengths = self.lengths[rows]

    def _run(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        return self.decoder.bert(
            input_ids,
            mode="decoder",
            image_kv=self.image_kv,
            image_mask=self.image_mask,
            cache=self.cache,
            positions=positions,
        )
