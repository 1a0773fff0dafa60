"""Features of images and texts, alone and together, for other models to build on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from lavis_lite.common.registry import registry, suggest
from lavis_lite.models.blip_models.blip_outputs import BlipOutputFeatures
from lavis_lite.models.blip_models.dual_encoder import BlipDualEncoder
from lavis_lite.models.blip_models.inputs import check_same_number_each, checked_samples

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
        # By which the checkpoint divided similarities in training.
        self.temp = nn.Parameter(torch.tensor(0.07))

    @torch.no_grad()
    def extract_features(
        self, samples: Mapping[str, Any], mode: Literal["multimodal", "image", "text"] = "multimodal"
    ) -> BlipOutputFeatures:
        """Return hidden states of all tokens; of a single modality, their projections too.

        The first token stands for the whole image or text: the dot product of ``image_embeds_proj[:, 0]``
        and ``text_embeds_proj[:, 0]`` is their similarity.

        Args:
            samples: what the mode needs of "image" (images, 3, image_size, image_size) and "text_input", a
                list of texts; for "multimodal" the same number of texts for each image, adjacent.
            mode: "image", "text", or "multimodal" for texts read with their images.

        Raises:
            ValueError: an unknown mode.
            InputError: not an image or a text, a missing key, or numbers of texts that differ.
        """
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}.{suggest(str(mode), MODES)}")
        needed = {"image": ("image",), "text": ("text_input",), "multimodal": ("image", "text_input")}
        samples = checked_samples(samples, *needed[mode])
        if mode == "text":
            text_embeds = self.encode_text(*self.tokenize(samples["text_input"]))
            projected = F.normalize(self.text_proj(text_embeds), dim=-1)
            return BlipOutputFeatures(text_embeds=text_embeds, text_embeds_proj=projected)
        image_embeds = self.encode_image(samples["image"])
        if mode == "image":
            projected = F.normalize(self.vision_proj(image_embeds), dim=-1)
            return BlipOutputFeatures(image_embeds=image_embeds, image_embeds_proj=projected)
        check_same_number_each(samples["text_input"], image_embeds)
        multimodal_embeds = self.text_encoder(
            *self.tokenize(samples["text_input"], self.enc_token_id),
            mode="multimodal",
            image_kv=self.text_encoder.project_image(image_embeds),
        )
        return BlipOutputFeatures(image_embeds=image_embeds, multimodal_embeds=multimodal_embeds)
