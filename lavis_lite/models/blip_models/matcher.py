"""A dual encoder with a head that tells whether a text matches an image (ITM)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lavis_lite.models.blip_models.dual_encoder import BlipDualEncoder
from lavis_lite.models.layers.attention import ImageKeyValues

# Texts are read apart from longer ones if there are this many of those, and they are this much shorter.
MIN_CHUNK = 16
SIMILAR_LENGTH = 0.8


class BlipMatcher(BlipDualEncoder):
    """Reads a text with an image, and tells whether they match."""

    @dataclass
    class Config(BlipDualEncoder.Config):
        """Settings.

        Attributes:
            itm_first_token: first token of a text that is read with an image: "enc" for [ENC], as BLIP was
                trained; "cls" for [CLS], as in transformers and in BLIP's demo. Scores differ.
        """

        itm_first_token: Literal["enc", "cls"] = "enc"

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.itm_head = nn.Linear(self.text_config.hidden_size, 2)

    def match_ids(self, input_ids: Tensor) -> Tensor:
        """Return `input_ids` with the first token of a text that is read with an image."""
        if self.config.itm_first_token == "cls":
            return input_ids
        input_ids = input_ids.clone()
        input_ids[..., 0] = self.enc_token_id
        return input_ids

    def match_states(
        self, input_ids: Tensor, attention_mask: Tensor, image_kv: list[ImageKeyValues]
    ) -> Tensor:
        """Return hidden states (rows, length, hidden_size) of texts read with their images.

        Args:
            input_ids: (rows, length), rows = images * texts, an image's texts adjacent.
            image_kv: `text_encoder.project_image` of the images.
        """
        return self.text_encoder(
            self.match_ids(input_ids), attention_mask, mode="multimodal", image_kv=image_kv
        )

    def match_logits(
        self, input_ids: Tensor, attention_mask: Tensor, image_kv: list[ImageKeyValues]
    ) -> Tensor:
        """Return logits (rows, 2), column 1 for a match; see `match_states`."""
        return self.itm_head(self.match_states(input_ids, attention_mask, image_kv)[:, 0])

    @torch.no_grad()
    def match_candidates(
        self, image_embeds: Tensor, texts: Sequence[Sequence[str]], max_tokens: int = 1 << 15
    ) -> list[Tensor]:
        """Return, for each image, the match logits (its texts, 2) of its texts.

        An image is projected once, and its texts are read side by side.

        Args:
            image_embeds: (images, tokens, width).
            texts: of each image; their numbers may differ.
            max_tokens: text tokens that are read at once; bounds the memory.
        """
        logits = []
        for embeds, candidates in zip(image_embeds, texts, strict=True):
            input_ids, attention_mask = self.tokenize(candidates)
            logits.append(self.match_one_image(embeds[None], input_ids, attention_mask, max_tokens))
        return logits

    def match_one_image(
        self, image_embeds: Tensor, input_ids: Tensor, attention_mask: Tensor, max_tokens: int
    ) -> Tensor:
        """Return the match logits (texts, 2) of one image and several texts.

        Texts are read in the order of their length, so that little is padding.

        Args:
            image_embeds: (1, tokens, width).
            input_ids: (texts, length).
            attention_mask: (texts, length).
            max_tokens: text tokens that are read at once; bounds the memory.
        """
        image_kv = self.text_encoder.project_image(image_embeds)
        lengths, order = attention_mask.sum(1).sort(descending=True)
        logits = torch.empty(len(order), 2, device=order.device)
        start = 0
        for count, length in _chunks(lengths.tolist(), max_tokens):
            rows = order[start : start + count]
            chunk = self.match_logits(input_ids[rows, :length], attention_mask[rows, :length], image_kv)
            logits[rows] = chunk.float()
            start += count
        return logits


def _chunks(lengths: Sequence[int], max_tokens: int) -> Iterator[tuple[int, int]]:
    """Divide texts, longest first, into chunks of similar length; yield the (texts, length) of each.

    >>> list(_chunks([20, 19, 18, 12] + [11] * 14, max_tokens=400))
    [(16, 20), (2, 11)]
    """
    start = 0
    for index, length in enumerate(lengths):
        count = index - start
        much_shorter = count >= MIN_CHUNK and length < SIMILAR_LENGTH * lengths[start]
        if much_shorter or (count and (count + 1) * lengths[start] > max_tokens):
            yield count, lengths[start]
            start = index
    if start < len(lengths):
        yield len(lengths) - start, lengths[start]
