"""Pretraining on noisy pairs with three losses: ITC, ITM and LM (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from lavis_lite.common.registry import registry
from lavis_lite.models.blip_models.blip_outputs import BlipOutput, DecoderOutput
from lavis_lite.models.blip_models.contrastive import BlipContrastive, Pairs
from lavis_lite.models.blip_models.losses import IGNORED, language_model_loss
from lavis_lite.models.layers.attention import ImageKeyValues
from lavis_lite.models.layers.med import Part, TextDecoder

# What text encoder and decoder share; the paper compares these four (section 4.4).
SHARING: dict[str, tuple[Part, ...]] = {
    "all": ("embeddings", "self_attention", "cross_attention", "feed_forward"),
    "all but cross-attention": ("embeddings", "self_attention", "feed_forward"),
    "all but self-attention": ("embeddings", "cross_attention", "feed_forward"),
    "none": (),
}


@registry.register_model("blip_pretrain")
class BlipPretrain(BlipContrastive):
    """Vision transformer, text encoder and text decoder, trained on ITC + ITM + LM.

    Example:
        >>> import torch
        >>> from lavis_lite import load_model
        >>> model = load_model("blip_pretrain", "tiny")
        >>> samples = {"image": torch.zeros(2, 3, 64, 64), "text_input": ["a red circle", "a star"]}
        >>> sorted(name for name in model(samples) if name.startswith("loss_"))
        ['loss_itc', 'loss_itm', 'loss_lm', 'loss_weight']
    """

    default_configs: ClassVar[Mapping[str, str]] = {
        "base": "blip_pretrain_base",
        "large": "blip_pretrain_large",
        "tiny": "blip_pretrain_tiny",
    }
    min_negative_weight: ClassVar[float] = 1e-4

    @dataclass
    class Config(BlipContrastive.Config):
        """Settings.

        Attributes:
            shared_text_parameters: what text encoder and text decoder share.
            label_smoothing: of the language-model loss.
        """

        image_size: int = 224
        max_txt_len: int = 30
        shared_text_parameters: Literal[
            "all", "all but cross-attention", "all but self-attention", "none"
        ] = "all but self-attention"
        label_smoothing: float = 0.1

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.shared_parts = SHARING[config.shared_text_parameters]
        self.text_decoder = TextDecoder(self.text_config, self.text_encoder, self.shared_parts)

    def forward(self, samples: Mapping[str, Any]) -> BlipOutput:
        """Return the losses of matching pairs.

        Args:
            samples: "image" (pairs, 3, image_size, image_size) and "text_input" (pairs,) texts. May have
                "image_id" (pairs,), so that another text of the same image is not drawn as a negative; and
                "epoch", "iters", "num_iters_per_epoch", for the ramp of alpha.

        Raises:
            InputError: not an image or a text, or not one text for each image.
        """
        output, pairs, image_kv = self.contrast_and_match(samples)
        loss_lm, decoder_output, labels = self._caption(pairs, image_kv)
        output["loss"] = output["loss"] + loss_lm
        output["loss_lm"] = loss_lm
        output["intermediate_output"]["decoder_output"] = decoder_output
        output["intermediate_output"]["decoder_labels"] = labels
        return output

    def _caption(self, pairs: Pairs, image_kv: list[ImageKeyValues]) -> tuple[Tensor, DecoderOutput, Tensor]:
        """Return the language-model loss, the output of the decoder, and its labels."""
        input_ids = pairs.input_ids.clone()
        input_ids[:, 0] = self.dec_token_id
        labels = input_ids.masked_fill(pairs.attention_mask == 0, IGNORED)
        if "cross_attention" not in self.shared_parts:
            image_kv = self.text_decoder.bert.project_image(pairs.image_embeds)
        decoder_output, mean, count = language_model_loss(
            self.text_decoder, input_ids, pairs.attention_mask, labels, image_kv, self.config.label_smoothing
        )
        loss = mean * count / self.share_of_total(count, pairs)
        return loss, decoder_output, labels
