"""Features of images and texts, alone and together, for other models to build on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite.common.registry import registry, suggest
from lavis_lite.models.blip_models.blip_outputs import BlipOutputFeatures
from lavis_lite.models.blip_models.dual_encoder import BlipDualEncoder
from lavis_lite.models.blip_models.inputs import check_text_count, checked_samples

MODES = ("multimodal", "image", "text")


@registry.register_model("blip_feature_extractor")
class BlipFeatureExtractor(BlipDualEncoder):
    """A pretrained checkpoint's image and text encoders.

    Example:
        >>> from lavis_lite import load_model
        >>> model = load_model("blip_feature_extractor", "tiny", is_eval=True)
        >>> samples = {"image": torch.zeros(1, 3, 64, 64), "text_input": ["a red circle"]}
        >>> model.extract_features(samples, mode="image").image_embeds_proj.shape
        torch.Size([1, 17, 64])
    """

    default_configs: ClassVar[Mapping[str, str]] = {
        "base": "blip_feature_extractor_base",
        "tiny": "blip_feature_extractor_tiny",
    }

    @dataclass
    class Config(BlipDualEncoder.Config):
        """Settings."""

        image_size: int = 224
        max_txt_len: int = 40

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        # What the checkpoint divided similarities by in training.
        self.temp = nn.Parameter(torch.tensor(0.07))

    @torch.no_grad()
    def extract_features(
        self, samples: Mapping[str, Any], mode: Literal["multimodal", "image", "text"] = "multimodal"
    ) -> BlipOutputFeatures:
        """Return hidden states of all tokens, and for a single modality their projections too.

        The first token of an image or a text stands for the whole: ``image_embeds_proj[:, 0]`` and
        ``text_embeds_proj[:, 0]`` are comparable by their dot product.

        Args:
            samples: "image" (images, 3, image_size, image_size) and "text_input", a list of texts;
                only what the mode needs.

        Raises:
            ValueError: an unknown mode, or no "image" or "text_input" where the mode needs it.
        """
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}.{suggest(str(mode), MODES)}")
        needed = {"image": ("image",), "text": ("text_input",), "multimodal": ("image", "text_input")}
        samples = checked_samples(samples, *needed[mode])
        if mode == "image":
            image_embeds = self.encode_image(samples["image"])
            return BlipOutputFeatures(
                image_embeds=image_embeds, image_embeds_proj=_normalised(self.vision_proj, image_embeds)
            )
        if mode == "text":
            text_embeds = self.encode_text(*self.tokenize(samples["text_input"]))
            return BlipOutputFeatures(
                text_embeds=text_embeds, text_embeds_proj=_normalised(self.text_proj, text_embeds)
            )
        image_embeds = self.encode_image(samples["image"])
        check_text_count(samples["text_input"], len(image_embeds))
        multimodal_embeds = self.text_encoder(
            *self.tokenize(samples["text_input"], self.enc_token_id),
            mode="multimodal",
            image_kv=self.text_encoder.project_image(image_embeds),
        )
        return BlipOutputFeatures(image_embeds=image_embeds, multimodal_embeds=multimodal_embeds)


def _normalised(projection: nn.Linear, embeds: Tensor) -> Tensor:
    return F.normalize(projection(embeds), dim=-1)
