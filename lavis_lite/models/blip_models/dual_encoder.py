"""Images and texts as vectors of a common space: what ITC trains and image search compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite.models.blip_models.blip import BlipBase
from lavis_lite.models.layers.med import TextTransformer


class BlipDualEncoder(BlipBase):
    """A vision and a text transformer, and a projection of each to the common space.

    It has two kinds of features. *Hidden states* (`encode_image`, `encode_text`) are read by
    cross-attention. *Embeddings* (`embed_images`, `embed_texts`) are projected to the common space and of
    length 1; their dot product is a similarity.
    """

    @dataclass
    class Config(BlipBase.Config):
        """Settings.

        Attributes:
            embed_dim: dimensions of the common space.
        """

        embed_dim: int = 256
        max_txt_len: int = 35

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.text_encoder = TextTransformer(self.text_config)
        self.vision_proj = nn.Linear(config.vision_sizes.embed_dim, config.embed_dim)
        self.text_proj = nn.Linear(self.text_config.hidden_size, config.embed_dim)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return hidden states (texts, length, hidden_size), [CLS] first, of texts read without an image."""
        return self.text_encoder(input_ids, attention_mask, mode="text")

    def project_image_embeds(self, image_embeds: Tensor) -> Tensor:
        """Return embeddings (images, embed_dim) of hidden states (images, tokens, width)."""
        return F.normalize(self.vision_proj(image_embeds[:, 0]), dim=-1)

    def project_text_embeds(self, text_embeds: Tensor) -> Tensor:
        """Return embeddings (texts, embed_dim) of hidden states (texts, length, hidden_size)."""
        return F.normalize(self.text_proj(text_embeds[:, 0]), dim=-1)

    def embed_images(self, image: Tensor) -> Tensor:
        """Return embeddings (images, embed_dim) of `image` (images, 3, height, width)."""
        return self.project_image_embeds(self.encode_image(image))

    def read_visual(self, samples: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Return hidden states (samples, tokens, width) and embeddings (samples, embed_dim).

        Args:
            samples: "image" (samples, 3, height, width), or "video" (samples, 3, frames, height, width); the
                embedding of a video is the normalized mean of its frames' embeddings.
        """
        if samples.get("video") is None:
            image_embeds = self.encode_image(samples["image"])
            return image_embeds, self.project_image_embeds(image_embeds)
        frames = self.encode_frames(samples["video"])  # (videos, frames, tokens, width)
        embeddings = self.project_image_embeds(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return frames.flatten(1, 2), F.normalize(embeddings.mean(1), dim=-1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return embeddings (texts, embed_dim)."""
        return self.project_text_embeds(self.encode_text(*self.tokenize(texts)))
