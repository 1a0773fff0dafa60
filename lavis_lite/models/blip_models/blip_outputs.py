"""What the BLIP models return; fields can be read as attributes or as keys."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class DecoderOutput(ModelOutput):
    """A decoder pass over whole texts.

    Attributes:
        hidden_states: (rows, length, width), before the language-model head.
        logits: (labelled positions, vocab_size): only positions that have a label are projected.
    """

    hidden_states: Tensor | None = None
    logits: Tensor | None = None


@dataclass
class BlipSimilarity(ModelOutput):
    """What ITC compares: each (pairs, batch of all ranks + queue_size).

    Attributes:
        sim_i2t: of images to texts; `sim_t2i` of texts to images.
        sim_i2t_m: as the momentum model finds; `sim_t2i_m` likewise.
        sim_i2t_targets: what `sim_i2t` is trained towards; `sim_t2i_targets` likewise.
    """

    sim_i2t: Tensor | None = None
    sim_t2i: Tensor | None = None
    sim_i2t_m: Tensor | None = None
    sim_t2i_m: Tensor | None = None
    sim_i2t_targets: Tensor | None = None
    sim_t2i_targets: Tensor | None = None


@dataclass
class BlipOutputFeatures(ModelOutput):
    """What a feature extractor finds; "proj" means projected to the common space, of length 1.

    Attributes:
        image_embeds: (images, tokens, width); `image_embeds_proj` (images, tokens, embed_dim).
        text_embeds: (texts, length, hidden_size); `text_embeds_proj` (texts, length, embed_dim).
        multimodal_embeds: (pairs, length, hidden_size).
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
        image_embeds_m: of the momentum copies; `text_embeds_m` likewise.
        encoder_output: (pairs, length, hidden_size) of matching pairs read together.
        encoder_output_neg: (2 * pairs, length, hidden_size): each text with another image, then each
            image with another text.
        itm_logits: (3 * pairs, 2): the matching pairs, then those of `encoder_output_neg`.
        itm_labels: (3 * pairs,) 1 for a match.
        negative_images: (pairs,) which image each text was given; `negative_texts` likewise.
        decoder_output: of the caption decoder.
        decoder_labels: (rows, length), -100 where nothing is to be predicted.
    """

    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds_m: Tensor | None = None
    text_embeds_m: Tensor | None = None
    encoder_output: Tensor | None = None
    encoder_output_neg: Tensor | None = None
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
        loss: the sum to minimise, a mean over `loss_weight` terms.
        loss_itc, loss_itm, loss_lm: contrastive, matching and language-model loss.
        loss_weight: how many terms (tokens, pairs) the mean was taken over, so that means of
            several batches or ranks can be joined into the mean of all.
    """

    loss: Tensor | None = None
    loss_itc: Tensor | None = None
    loss_itm: Tensor | None = None
    loss_lm: Tensor | None = None
    loss_weight: Tensor | None = None
    sims: BlipSimilarity | None = None
    intermediate_output: BlipIntermediateOutput | None = None
