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
class BlipIntermediateOutput(ModelOutput):
    """Tensors on the way to the loss.

    Attributes:
        image_embeds: (images, tokens, width) of the vision transformer.
        decoder_output: of the caption decoder.
        decoder_labels: (rows, length), -100 where nothing is to be predicted.
    """

    image_embeds: Tensor | None = None
    decoder_output: DecoderOutput | None = None
    decoder_labels: Tensor | None = None


@dataclass
class BlipOutput(ModelOutput):
    """Losses of one forward pass.

    Attributes:
        loss: the sum to minimise, a mean over `loss_weight` terms.
        loss_lm: language-model loss.
        loss_weight: how many terms (tokens, pairs) the mean was taken over, so that means of
            several batches or ranks can be joined into the mean of all.
    """

    loss: Tensor | None = None
    loss_lm: Tensor | None = None
    loss_weight: Tensor | None = None
    intermediate_output: BlipIntermediateOutput | None = None
