"""Natural-language visual reasoning: is a sentence true for a pair of images? (paper section 5.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from lavis_lite.common.registry import registry
from lavis_lite.models.blip_models.blip import BlipBase
from lavis_lite.models.blip_models.classifier import BlipClassifier, classification_head
from lavis_lite.models.blip_models.inputs import InputError, checked_samples
from lavis_lite.models.layers.med import TextTransformer
from lavis_lite.models.weights.adapters.salesforce import double_cross_attention, encoder_from_decoder


@registry.register_model("blip_nlvr")
class BlipNLVR(BlipClassifier):
    """A text encoder that reads a sentence with two images, and a classifier on its first token.

    Example:
        >>> from lavis_lite import load_model
        >>> model = load_model("blip_nlvr", "tiny", is_eval=True)
        >>> image = torch.zeros(2, 3, 64, 64)
        >>> texts = ["both images show a star", "the left image is red"]
        >>> samples = {"image0": image, "image1": image, "text_input": texts, "label": torch.tensor([1, 0])}
        >>> model.predict(samples)["predictions"].shape
        torch.Size([2, 2])
    """

    default_configs: ClassVar[Mapping[str, str]] = {"nlvr": "blip_nlvr", "tiny": "blip_nlvr_tiny"}

    @dataclass
    class Config(BlipBase.Config):
        """Settings.

        Attributes:
            num_classes: 2 for false and true.
            max_txt_len: maximum tokens of a sentence; by default none is cut.
        """

        num_classes: int = 2
        max_txt_len: int = 512

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        text_config = replace(self.text_config, images_per_text=2)
        self.text_encoder = TextTransformer(text_config)
        self.cls_head = classification_head(text_config.hidden_size, config.num_classes)
        self.longest_text = min(config.max_txt_len, text_config.max_position_embeddings)

    @property
    def text_lengths(self) -> dict[str, int]:
        """Key of a training batch -> maximum tokens of its texts."""
        return {"text_input": self.longest_text}

    def classify(self, samples: Mapping[str, Any]) -> Tensor:
        """Return logits (pairs, num_classes).

        Args:
            samples: "image0" and "image1" (pairs, 3, image_size, image_size), and "text_input", the
                sentences. For training, "label" (pairs,) is 1 for true.

        Raises:
            InputError: not an image or a text, or not one sentence for each pair.
        """
        samples = checked_samples(samples, "image0", "image1", "text_input")
        first, second = self.check_image(samples["image0"]), self.check_image(samples["image1"])
        texts = samples["text_input"]
        if not len(first) == len(second) == len(texts):
            raise InputError(f"{len(first)} and {len(second)} images for {len(texts)} sentences.")
        image_embeds = self.encode_image(torch.cat((first, second)))
        image_embeds = torch.stack(image_embeds.chunk(2), dim=1)  # (pairs, 2, tokens, width)
        states = self.text_encoder(
            *self.tokenize(texts, self.enc_token_id, max_length=self.longest_text),
            mode="multimodal",
            image_kv=self.text_encoder.project_image(image_embeds),
        )
        return self.cls_head(states[:, 0])

    def load_weights(self, state_dict: Mapping[str, Tensor], source: str, fresh: Sequence[str] = ()) -> None:
        """Load weights of NLVR, or of a model for single images, whose cross-attention is doubled."""
        if not any(".crossattention.self0." in key for key in state_dict):
            state_dict = double_cross_attention(encoder_from_decoder(state_dict))
            fresh = (*fresh, "cls_head.", *(key for key in self.state_dict() if ".merge_layer." in key))
        super().load_weights(state_dict, source, fresh)
