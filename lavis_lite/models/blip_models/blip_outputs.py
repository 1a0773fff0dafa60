"""Outputs of the BLIP models; fields can be read as attributes or as keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput


class HiddenStates(Tensor):
    """Hidden states (rows, length, width) that also have the attribute `last_hidden_state`, as in LAVIS."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Have operations return plain tensors."""
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def of(cls, states: Tensor) -> HiddenStates:
        """Return `states` as `HiddenStates`, without a copy."""
        return states.as_subclass(cls)

    @property
    def last_hidden_state(self) -> Tensor:
        """The hidden states as a plain tensor."""
        return self.as_subclass(Tensor)


@dataclass(eq=False)
class DecoderOutput:
    """A decoder pass over whole texts.

    Attributes:
        hidden_states: (rows, length, width), before the language-model head.
        label_logits: (labeled positions, vocab_size). Training projects no others to the vocabulary,
            because the projection is expensive.
        head: the language-model head.
    """

    hidden_states: Tensor
    label_logits: Tensor
    head: Callable[[Tensor], Tensor] = field(repr=False)

    @cached_property
    def logits(self) -> Tensor:
        """(rows, length, vocab_size), computed when it is first read."""
        return self.head(self.hidden_states)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


@dataclass
class BlipSimilarity(ModelOutput):
    """The similarities that ITC compares, each (pairs, pairs of all ranks + queue_size).

    Attributes:
        sim_i2t: of images to texts.
        sim_t2i: of texts to images.
        sim_i2t_m: of images to texts, by the momentum model.
        sim_t2i_m: of texts to images, by the momentum model.
        sim_i2t_targets: target distribution of `sim_i2t`.
        sim_t2i_targets: target distribution of `sim_t2i`.
    """

    sim_i2t: Tensor | None = None
    sim_t2i: Tensor | None = None
    sim_i2t_m: Tensor | None = None
    sim_t2i_m: Tensor | None = None
    sim_i2t_targets: Tensor | None = None
    sim_t2i_targets: Tensor | None = None


@dataclass
class BlipOutputFeatures(ModelOutput):
    """Features of images and texts.

    Attributes:
        image_embeds: (images, tokens, width) hidden states.
        image_embeds_proj: (images, tokens, embed_dim), projected to the common space, of length 1.
        text_embeds: (texts, length, hidden_size) hidden states.
        text_embeds_proj: (texts, length, embed_dim), projected to the common space, of length 1.
        multimodal_embeds: (pairs, length, hidden_size) hidden states of texts read with their images.
    """

    image_embeds: Tensor | None = None
    image_embeds_proj: Tensor | None = None
    text_embeds: Tensor | None = None
    text_embeds_proj: Tensor | None = None
    multimodal_embeds: Tensor | None = None


@dataclass
class BlipIntermediateOutput(ModelOutput):
    """Tensors on the way to the loss.

    Attributes:
        image_embeds: (images, tokens, width) of the vision transformer.
        text_embeds: (texts, length, hidden_size) of texts read alone.
        image_embeds_m: (images, tokens, width) of the vision transformer's momentum copy.
        text_embeds_m: (texts, length, hidden_size) of the text encoder's momentum copy.
        encoder_output: (pairs, length, hidden_size) of matching pairs read together.
        encoder_output_neg: (2 * pairs, length, hidden_size): each text with another image, then each
            image with another text.
        itm_logits: (3 * pairs, 2): the matching pairs, then those of `encoder_output_neg`.
        itm_labels: (3 * pairs,) 1 for a match.
        negative_images: (pairs,) number of the image that each text was read with.
        negative_texts: (pairs,) number of the text that each image was read with.
        decoder_output: of the caption decoder.
        decoder_labels: (rows, length), -100 where nothing is predicted.
    """

    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds_m: Tensor | None = None
    text_embeds_m: Tensor | None = None
    encoder_output: HiddenStates | None = None
    encoder_output_neg: HiddenStates | None = None
    itm_logits: Tensor | None = None
    itm_labels: Tensor | None = None
    negative_images: Tensor | None = None
    negative_texts: Tensor | None = None
    decoder_output: DecoderOutput | None = None
    decoder_labels: Tensor | None = None


@dataclass
class BlipOutput(ModelOutput):
    """Losses of one forward pass.

    Attributes:
        loss: the sum to minimize, a mean over `loss_weight` terms.
        loss_itc: image-text contrastive loss.
        loss_itm: image-text matching loss.
        loss_lm: language-model loss.
        loss_weight: number of terms (tokens, pairs) of the mean, with which the means of several batches
            or ranks become the mean of all.
        report: numbers that are shown but not minimized, as detached tensors.
        sims: what ITC compared.
        intermediate_output: tensors on the way to the loss.
        logits: (pairs, num_classes) of a classifier.
    """

    loss: Tensor | None = None
    loss_itc: Tensor | None = None
    loss_itm: Tensor | None = None
    loss_lm: Tensor | None = None
    loss_weight: Tensor | None = None
    report: Mapping[str, Tensor] | None = None
    sims: BlipSimilarity | None = None
    intermediate_output: BlipIntermediateOutput | None = None
    logits: Tensor | None = None
