"""Classification of an image and a text, as in visual entailment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_lite.common.registry import registry
from lavis_lite.models.blip_models.blip import BlipBase
from lavis_lite.models.blip_models.classifier import BlipClassifier, classification_head
from lavis_lite.models.blip_models.inputs import check_one_each, checked_samples
from lavis_lite.models.blip_models.losses import ramped_alpha
from lavis_lite.models.layers.med import TextTransformer
from lavis_lite.models.layers.momentum import add_momentum_copies, update_momentum_copies
from lavis_lite.models.weights.adapters.salesforce import encoder_from_decoder, momentum_from_online


@registry.register_model("blip_classification")
class BlipClassification(BlipClassifier):
    """A text encoder that reads a text with an image, and a classifier on its first token.

    Example:
        >>> from lavis_lite import load_model
        >>> model = load_model("blip_classification", "tiny", is_eval=True)
        >>> samples = {"image": torch.zeros(1, 3, 64, 64), "text_input": ["a star"], "label": [2]}
        >>> model.predict(samples)["predictions"].shape
        torch.Size([1, 3])
    """

    default_configs: ClassVar[Mapping[str, str]] = {
        "base": "blip_classification_base",
        "tiny": "blip_classification_tiny",
    }

    @dataclass
    class Config(BlipBase.Config):
        """Settings.

        Attributes:
            num_classes: number of labels; must be set.
            use_distill: mix the distribution of a momentum model into the targets.
            momentum: share of a momentum copy that remains in each step.
            alpha: weight of the momentum model's distribution in the targets.
            alpha_ramp_epochs: epochs in which `alpha` grows from 0.
        """

        num_classes: int | None = None
        use_distill: bool = True
        momentum: float = 0.995
        alpha: float = 0.4
        alpha_ramp_epochs: float = 1.0

        def check(self) -> list[tuple[str, str]]:
            """Return an error for each missing or impossible value."""
            if self.num_classes is None or self.num_classes < 2:
                missing = ("num_classes", "is missing; set it to the number of labels, 2 or more.")
                return [*super().check(), missing]
            return super().check()

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        assert config.num_classes is not None  # see `Config.check`
        self.text_encoder = TextTransformer(self.text_config)
        self.cls_head = classification_head(self.text_config.hidden_size, config.num_classes)
        self.momentum_parts = ("visual_encoder", "text_encoder", "cls_head") if config.use_distill else ()
        add_momentum_copies(self, self.momentum_parts)

    def loss(self, samples: Mapping[str, Any], logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy, mixed with that against the momentum model's distribution."""
        loss = F.cross_entropy(logits, targets)
        if not self.config.use_distill:
            return loss
        with torch.no_grad():
            distribution = self.classify(samples, suffix="_m").softmax(1)
        alpha = ramped_alpha(self.config.alpha, self.config.alpha_ramp_epochs, samples)
        distilled = -(F.log_softmax(logits, dim=1) * distribution).sum(1).mean()
        return (1 - alpha) * loss + alpha * distilled

    def classify(self, samples: Mapping[str, Any], suffix: str = "") -> Tensor:
        """Return logits (pairs, num_classes).

        Args:
            samples: "image" (pairs, 3, image_size, image_size) and "text_input", the texts. For training,
                "label" (pairs,); may have "epoch", "iters", "num_iters_per_epoch", for the ramp of alpha.
            suffix: "_m" for the momentum model.

        Raises:
            InputError: not an image or a text, or not one text for each image.
        """
        samples = checked_samples(samples, "image", "text_input")
        encode, read, head = (
            getattr(self, part + suffix) for part in ("visual_encoder", "text_encoder", "cls_head")
        )
        image_embeds = encode(self.check_image(samples["image"]))
        check_one_each(samples["text_input"], image_embeds, "texts")
        states = read(
            *self.tokenize(samples["text_input"], self.enc_token_id),
            mode="multimodal",
            image_kv=read.project_image(image_embeds),
        )
        return head(states[:, 0])

    def after_step(self) -> None:
        """Update the momentum model."""
        if self.momentum_parts:
            update_momentum_copies(self, self.momentum_parts, self.config.momentum)

    def load_weights(self, state_dict: Mapping[str, Tensor], source: str, fresh: Sequence[str] = ()) -> None:
        """Load weights with or without momentum copies; a captioner's decoder can initialize the encoder."""
        state_dict = momentum_from_online(encoder_from_decoder(state_dict), self.momentum_parts)
        if not any(key.startswith("cls_head.") for key in state_dict):  # a pretrained checkpoint
            fresh = (*fresh, "cls_head.", "cls_head_m.")
        super().load_weights(state_dict, source, fresh)
