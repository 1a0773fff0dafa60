"""Scores of how well texts fit images: from the matching head or from embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lavis_lite.common.registry import registry
from lavis_lite.models.blip_models.inputs import check_one_each, check_same_number_each, checked_samples
from lavis_lite.models.blip_models.matcher import BlipMatcher

MatchHead = Literal["itm", "itc"]


@registry.register_model("blip_image_text_matching")
class BlipITM(BlipMatcher):
    """A matcher for inference; it loads retrieval checkpoints.

    Example:
        >>> from lavis_lite import load_model
        >>> model = load_model("blip_image_text_matching", "tiny", is_eval=True)
        >>> samples = {"image": torch.zeros(2, 3, 64, 64), "text_input": ["a red circle", "a star"]}
        >>> model(samples, match_head="itm").shape
        torch.Size([2, 2])
    """

    default_configs: ClassVar[Mapping[str, str]] = {
        "base": "blip_itm_base",
        "large": "blip_itm_large",
        "tiny": "blip_itm_tiny",
    }

    def forward(self, samples: Mapping[str, Any], match_head: MatchHead = "itm") -> Tensor:
        """Return match logits (pairs, 2), column 1 for a match, or cosine similarities (images, texts).

        Args:
            samples: "image" (images, 3, image_size, image_size) and "text_input", a list of texts; for "itm"
                the same number of texts for each image, adjacent.
            match_head: "itm" for match logits, "itc" for similarities.

        Raises:
            ValueError: an unknown head.
            InputError: not an image or a text, or texts that cannot be divided among the images.
        """
        _check_head(match_head)
        samples = checked_samples(samples, "image", "text_input")
        texts = samples["text_input"]
        image_embeds = self.encode_image(samples["image"])
        if match_head == "itc":
            return self.project_image_embeds(image_embeds) @ self.embed_texts(texts).T
        check_same_number_each(
            texts, image_embeds, ", or use match_head='itc', which compares every image with every text"
        )
        return self.match_logits(*self.tokenize(texts), self.text_encoder.project_image(image_embeds))

    @torch.no_grad()
    def itm_rank(
        self,
        image_embeds: Tensor,
        image_atts: Tensor | None,
        encoder_input_ids: Tensor,
        match_head: MatchHead = "itm",
    ) -> Tensor:
        """Return match probabilities (rows,), or cosine similarities (images, rows), of tokenized texts.

        Args:
            image_embeds: hidden states (images, tokens, width).
            image_atts: (images, tokens), 1 where attention is allowed; None for everywhere.
            encoder_input_ids: (rows, length), 0 at padding, an image's rows adjacent.
            match_head: "itm" for match probabilities, "itc" for similarities.
        """
        _check_head(match_head)
        attention_mask = (encoder_input_ids != self.tokenizer.pad_token_id).long()
        if match_head == "itc":
            text_embeds = self.encode_text(encoder_input_ids, attention_mask)
            return self.project_image_embeds(image_embeds) @ self.project_text_embeds(text_embeds).T
        states = self.text_encoder(
            self.match_ids(encoder_input_ids),
            attention_mask,
            mode="multimodal",
            image_kv=self.text_encoder.project_image(image_embeds),
            image_mask=None if image_atts is None else image_atts[:, None, None, :].bool(),
        )
        return self.itm_head(states[:, 0]).softmax(1)[:, 1]

    def itm_scores(self, image: Tensor, texts: Sequence[Sequence[str]]) -> list[Tensor]:
        """Return, for each image, the match probabilities of its texts.

        Args:
            image: (images, 3, height, width).
            texts: of each image; their numbers may differ.

        Raises:
            InputError: not an image or a text, or not one list of texts for each image.
        """
        image_embeds = self.encode_image(image)
        check_one_each(texts, image_embeds, "lists of texts")
        return [logits.softmax(1)[:, 1] for logits in self.match_candidates(image_embeds, texts)]


def _check_head(match_head: str) -> None:
    if match_head not in ("itm", "itc"):
        raise ValueError(f"match_head is {match_head!r}; choose 'itm' or 'itc'.")
