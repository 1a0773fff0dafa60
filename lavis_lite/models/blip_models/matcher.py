"""A dual encoder with a head that judges whether a text belongs to an image (ITM)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lavis_lite.models.blip_models.dual_encoder import BlipDualEncoder
from lavis_lite.models.layers.attention import ImageKeyValues
from lavis_lite.models.layers.linear import Linear

# Fewer texts than this are not worth a pass of their own; more are, if they are so much shorter.
LEAST_CHUNK = 16
SIMILAR = 0.8


class BlipMatcher(BlipDualEncoder):
    """Read a text while looking at an image, then say whether they match."""

    @dataclass
    class Config(BlipDualEncoder.Config):
        """Settings.

        Attributes:
            itm_first_token: "enc" puts [ENC] before a text that is read with an image, as BLIP was
                trained; "cls" leaves [CLS] there, as transformers and BLIP's own demo do. Scores differ.
        """

        itm_first_token: Literal["enc", "cls"] = "enc"

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.itm_head = Linear(self.text_config.hidden_size, 2)

    def match_ids(self, input_ids: Tensor) -> Tensor:
        """Return `input_ids` with the first token that tells the text model to look at an image."""
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
        """Return (rows, 2): column 1 speaks for a match. Arguments are those of `match_states`."""
        return self.itm_head(self.match_states(input_ids, attention_mask, image_kv)[:, 0])

    @torch.no_grad()
    def match_candidates(
        self, image_embeds: Tensor, texts: Sequence[Sequence[str]], max_tokens: int = 1 << 15
    ) -> list[Tensor]:
        """Return, for each image, the match logits (its texts, 2) of its candidate texts.

        An image's keys and values are computed once, and its candidates read side by side.

        Args:
            image_embeds: (images, tokens, width).
            texts: candidates of each image, as many as each has.
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
        """Return the match logits (texts, 2) of one image (1, tokens, width) and texts (texts, length).

        Texts are read in order of length, padded only as far as their neighbours need.
        """
        image_kv = self.text_encoder.project_image(image_embeds)
        lengths, order = attention_mask.sum(1).sort(descending=True)
        logits = torch.empty(len(order), 2, device=order.device)
        start = 0
        for count, length in _chunks(lengths.tolist(), max_tokens):
            chosen = order[start : start + count]
            chunk = self.match_logits(input_ids[chosen, :length], attention_mask[chosen, :length], image_kv)
            logits[chosen] = chunk.float()
            start += count
        return logits


def _chunks(lengths: Sequence[int], max_tokens: int) -> Iterator[tuple[int, int]]:
    """Cut texts, longest first, into chunks of similar length; yield (texts, length) of each.

    >>> list(_chunks([20, 19, 18, 12] + [11] * 14, max_tokens=400))
    [(16, 20), (2, 11)]
    """
    start = 0
    for index, length in enumerate(lengths):
        count = index - start
        much_shorter = count >= LEAST_CHUNK and length < SIMILAR * lengths[start]
        if much_shorter or (count and (count + 1) * lengths[start] > max_tokens):
            yield count, lengths[start]
            start = index
    if start < len(lengths):
        yield len(lengths) - start, lengths[start]
