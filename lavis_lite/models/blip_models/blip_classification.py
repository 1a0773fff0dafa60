"""Classify a text together with an image (visual entailment, for one)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_lite.common.registry import registry
from lavis_lite.models.blip_models.blip import BlipBase
from lavis_lite.models.blip_models.classifier import classification_head
from lavis_lite.models.blip_models.inputs import InputError, checked_labels, checked_samples
from lavis_lite.models.blip_models.losses import ramped_alpha
from lavis_lite.models.layers.med import TextTransformer
from lavis_lite.models.layers.momentum import add_momentum_copies, update_momentum_copies
from lavis_lite.models.weights.adapters.salesforce import encoder_from_decoder, momentum_from_online


@registry.register_model("blip_classification")
class BlipClassification(BlipBase):
    """A text encoder that looks at an image, and a classifier on its first token.

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
            num_classes: how many labels there are; must be set.
            use_distill: let a momentum model's opinion join the targets.
            momentum: how slowly its copies follow; `alpha` its share of the targets.
            alpha_ramp_epochs: epochs in which `alpha` grows from 0.
        """

        num_classes: int | None = None
        use_distill: bool = True
        momentum: float = 0.995
        alpha: float = 0.4
        alpha_ramp_epochs: float = 1.0

        def check(self) -> list[tuple[str, str]]:
            """Return complaints about missing or impossible values."""
            if self.num_classes is None or self.num_classes < 2:
                missing = ("num_classes", "is missing; set it to the number of labels, 2 or more.")
                return [*super().check(), missing]
            return super().check()

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.text_encoder = TextTransformer(self.text_config)
        self.cls_head = classification_head(self.text_config.hidden_size, config.num_classes)
        self.momentum_parts = ("visual_encoder", "text_encoder", "cls_head") if config.use_distill else ()
        add_momentum_copies(self, self.momentum_parts)

    def forward(self, samples: Mapping[str, Any], is_train: bool = True) -> dict[str, Tensor]:
        """Return {"loss"}, or where `is_train` is false {"predictions"}, and "targets" if there are labels.

        Args:
            samples: "image" (pairs, 3, image_size, image_size), "text_input" the texts, "label" (pairs,);
                may hold "epoch", "iters", "num_iters_per_epoch", for alpha's ramp.
        """
        logits = self.classify(samples)
        if not is_train and samples.get("label") is None:
            return {"predictions": logits}
        targets = checked_labels(samples, *logits.shape, logits.device)
        if not is_train:
            return {"predictions": logits, "targets": targets}
        loss = F.cross_entropy(logits, targets)
        if self.config.use_distill:
            with torch.no_grad():
                opinion = self.classify(samples, suffix="_m").softmax(1)
            alpha = ramped_alpha(self.config.alpha, self.config.alpha_ramp_epochs, samples)
            distilled = -(F.log_softmax(logits, dim=1) * opinion).sum(1).mean()
            loss = (1 - alpha) * loss + alpha * distilled
        return {"loss": loss, "loss_weight": logits.new_tensor(float(len(logits)))}

    def predict(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return "predictions", logits (pairs, num_classes), and "targets" (pairs,) if there are labels."""
        return self.forward(samples, is_train=False)

    def classify(self, samples: Mapping[str, Any], suffix: str = "") -> Tensor:
        """Return logits (pairs, num_classes); with `suffix` "_m", of the momentum model."""
        samples = checked_samples(samples, "image", "text_input")
        encode, read, head = (
            getattr(self, part + suffix) for part in ("visual_encoder", "text_encoder", "cls_head")
        )
        image_embeds = encode(self.check_image(samples["image"]))
        if len(samples["text_input"]) != len(image_embeds):
            raise InputError(
                f"{len(samples['text_input'])} texts for {len(image_embeds)} images; give one text an image."
            )
        states = read(
            *self.tokenize(samples["text_input"], self.enc_token_id),
            mode="multimodal",
            image_kv=read.project_image(image_embeds),
        )
        return head(states[:, 0])

    def after_step(self) -> None:
        """Let the momentum model follow."""
        if self.momentum_parts:
            update_momentum_copies(self, self.momentum_parts, self.config.momentum)

    def load_weights(self, state_dict: Mapping[str, Tensor], source: str) -> None:
        """Take weights with or without momentum copies; a captioner's decoder can start the encoder.

        Raises:
            CheckpointError: a key that the model needs is missing or mis-shaped; all are named.
        """
        state_dict = momentum_from_online(encoder_from_decoder(state_dict), self.momentum_parts)
        # a checkpoint without a head is a pretrained one
        has_head = any(key.startswith("cls_head.") for key in state_dict)
        super().load_weights(state_dict, source, fresh=() if has_head else ("cls_head.", "cls_head_m."))
