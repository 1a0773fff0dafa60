"""The text transformer of BLIP: one network in three roles (paper section 3.1).

It is BERT with a cross-attention to the image in every layer. The role is an argument of the call
(`mode`); the weights do not depend on it. The first token tells the weights which role they play::

        "text"                  "multimodal"                "decoder"

     hidden states            hidden states              hidden states -> next-token logits
          ^                        ^                           ^
    +-----|-----+            +-----|-----+               +-----|-----+
    |    MLP    |            |    MLP    |               |    MLP    |
    |     ^     |            |     ^     |               |     ^     |
    |     |     |            |   cross-  |<-- image      |   cross-  |<-- image
    |     |     |            | attention |               | attention |
    |     ^     |            |     ^     |               |     ^     |
    |   self-   |            |   self-   |               |  causal   |
    | attention |            | attention |               | self-att. |
    +-----|-----+ x layers   +-----|-----+ x layers      +-----|-----+ x layers
          |                        |                           |
    [CLS] a red car         [ENC] a red car             [DEC] a red car

    text embeddings         matching, questions,        captions,
    (ITC)                   NLVR                        answers

**An image is projected once.** The keys and values of the cross-attention depend on the image alone:
`TextTransformer.project_image` computes them for all layers, and every pass over a text reuses them.
Several texts about one image (beams, candidate captions, references) share them without a copy: their
rows (images * texts, length, width) become longer queries (images, texts * length, width) of the image.

Module names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite.models.layers.attention import (
    Attention,
    ImageKeyValues,
    PostNorm,
    SelfAttentionCache,
    TwoImageAttention,
)
from lavis_lite.models.layers.text_config import TextConfig

Mode = Literal["text", "multimodal", "decoder"]
Part = Literal["embeddings", "self_attention", "cross_attention", "feed_forward"]
# The parts that encoder and decoder share in pretraining: all but self-attention (paper section 3.2).
SHARED_PARTS: tuple[Part, ...] = ("embeddings", "cross_attention", "feed_forward")


class TextLayer(nn.Module):
    """Self-attention, cross-attention to the image, MLP."""

    def __init__(self, config: TextConfig, index: int) -> None:
        super().__init__()
        encoder_width = config.encoder_width or config.hidden_size
        self.attention = Attention(config, config.hidden_size)
        self.crossattention: Attention | TwoImageAttention
        if config.images_per_text == 2:
            in_upper_half = index >= config.num_hidden_layers // 2
            self.crossattention = TwoImageAttention(config, encoder_width, merges=in_upper_half)
        else:
            self.crossattention = Attention(config, encoder_width)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.hidden_size, config.intermediate_size)})
        self.output = PostNorm(config, config.intermediate_size)

    def forward(
        self,
        hidden: Tensor,
        mask: Tensor | None,
        image: ImageKeyValues | None,
        image_mask: Tensor | None,
        cached: tuple[SelfAttentionCache, int, Tensor] | None,
    ) -> Tensor:
        keys, values = self.attention.project_keys_values(hidden)
        if cached is not None:
            cache, layer, positions = cached
            keys, values = cache.write(layer, positions, keys, values)
        hidden = self.attention(hidden, keys, values, mask)
        if image is not None:
            rows = hidden.shape  # (images * texts, length, width)
            hidden = hidden.reshape(image.keys.shape[0], -1, rows[-1])  # (images, texts * length, width)
            hidden = self.crossattention(hidden, image.keys, image.values, image_mask).reshape(rows)
        return self.output(F.gelu(self.intermediate["dense"](hidden)), hidden)


class TextEmbeddings(nn.Module):
    """Normalized sum of word and position embeddings. BLIP has no token types."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        assert config.vocab_size is not None, "vocab_size is known once the tokenizer is"
        self.word_embeddings = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        # Not used; the published checkpoints hold it.
        self.register_buffer("position_ids", torch.arange(config.max_position_embeddings)[None])

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        return self.dropout(
            self.LayerNorm(self.word_embeddings(input_ids) + self.position_embeddings(positions))
        )


class TextTransformer(nn.Module):
    """A stack of `TextLayer` that is text encoder, image-grounded encoder or decoder as each call says."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TextEmbeddings(config)
        layers = nn.ModuleList(TextLayer(config, index) for index in range(config.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layer": layers})
        init_weights(self, config.initializer_range)

    def share(self, other: TextTransformer, parts: Collection[Part] = SHARED_PARTS) -> None:
        """Use the `parts` of `other` from now on; the state dict has them under both names."""
        if "embeddings" in parts:
            self.embeddings = other.embeddings
        for layer, other_layer in zip(self.layers, other.layers, strict=True):
            if "self_attention" in parts:
                layer.attention = other_layer.attention
            if "cross_attention" in parts:
                layer.crossattention = other_layer.crossattention
            if "feed_forward" in parts:
                layer.intermediate, layer.output = other_layer.intermediate, other_layer.output

    @property
    def layers(self) -> Sequence[TextLayer]:
        """The layers, first to last."""
        return cast("Sequence[TextLayer]", self.encoder["layer"])  # torch's containers are untyped

    def project_image(self, image_embeds: Tensor) -> list[ImageKeyValues]:
        """Return each layer's keys and values of the images.

        Args:
            image_embeds: (images, tokens, encoder_width), or (pairs, 2, tokens, encoder_width) if
                `images_per_text` is 2.
        """
        projected = [
            ImageKeyValues(*layer.crossattention.project_keys_values(image_embeds)) for layer in self.layers
        ]
        # In training they are read once or twice, in generation at every token: only then is a copy that
        # lies head by head worth its time.
        return projected if torch.is_grad_enabled() else [layer.contiguous() for layer in projected]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        mode: Mode,
        image_kv: list[ImageKeyValues] | None = None,
        image_mask: Tensor | None = None,
        cache: SelfAttentionCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Return the last hidden states (rows, length, hidden_size).

        Args:
            input_ids: (rows, length); with `image_kv`, rows = images * texts, an image's texts adjacent.
            attention_mask: (rows, length), 1 on tokens and 0 on padding to the right; None: no padding.
            image_kv: the images from `project_image`; None in mode "text" only.
            image_mask: (images, 1, 1, image tokens), true where attention is allowed; None: everywhere.
            cache: in mode "decoder", the tokens before these, to which these are added.
            positions: (rows, length) position of each token in its row; None: 0 .. length - 1.
        """
        assert (image_kv is None) == (mode == "text"), f"mode {mode!r} and image_kv do not go together"
        assert cache is None or mode == "decoder", "only the decoder reads token by token"
        if positions is None:
            positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        mask = _self_attention_mask(attention_mask, mode, positions, cache)
        hidden = self.embeddings(input_ids, positions)
        for index, layer in enumerate(self.layers):
            cached = None if cache is None else (cache, index, positions)
            hidden = layer(hidden, mask, None if image_kv is None else image_kv[index], image_mask, cached)
        return hidden


def _self_attention_mask(
    attention_mask: Tensor | None, mode: Mode, positions: Tensor, cache: SelfAttentionCache | None
) -> Tensor | None:
    """Return (rows, 1, queries, keys), true where attention is allowed, or None for everywhere.

    Padding is on the right, so every query has a key: position 0 is a token.
    """
    mask = None
    if mode == "decoder":
        key_count = cache.max_length if cache is not None else positions.shape[1]
        slots = torch.arange(key_count, device=positions.device)
        # Causal. Unused slots of a cache are to the right of every position, so this masks them too.
        mask = slots <= positions[:, None, :, None]
    if attention_mask is not None and cache is None:
        padding = attention_mask[:, None, None, :].bool()
        mask = padding if mask is None else mask & padding
    return mask


class LanguageModelHead(nn.Module):
    """Vocabulary logits of hidden states; the projection shares its matrix with the word embeddings."""

    def __init__(self, config: TextConfig, word_embeddings: nn.Embedding) -> None:
        super().__init__()
        self.transform = nn.ModuleDict(
            {
                "dense": nn.Linear(config.hidden_size, config.hidden_size),
                "LayerNorm": nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps),
            }
        )
        self.decoder = nn.Linear(config.hidden_size, word_embeddings.num_embeddings)
        init_weights(self, config.initializer_range)
        self.decoder.weight = word_embeddings.weight
        self.bias = self.decoder.bias  # one parameter; checkpoints hold it under both names

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.transform["LayerNorm"](F.gelu(self.transform["dense"](hidden)))
        return self.decoder(hidden)  # (..., vocab_size)


class TextDecoder(nn.Module):
    """The text transformer as a decoder, with a language-model head.

    Args:
        config: sizes.
        encoder: in pretraining, the text encoder to share `parts` with.
        parts: what to share.
    """

    def __init__(
        self,
        config: TextConfig,
        encoder: TextTransformer | None = None,
        parts: Collection[Part] = SHARED_PARTS,
    ) -> None:
        super().__init__()
        self.config = config
        self.bert = TextTransformer(config)
        if encoder is not None:
            self.bert.share(encoder, parts)
        head = LanguageModelHead(config, self.bert.embeddings.word_embeddings)
        self.cls = nn.ModuleDict({"predictions": head})

    @property
    def head(self) -> LanguageModelHead:
        """The language-model head."""
        return cast(LanguageModelHead, self.cls["predictions"])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        image_kv: list[ImageKeyValues],
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the hidden states (rows, length, hidden_size) of whole texts, for `head`."""
        return self.bert(input_ids, attention_mask, mode="decoder", image_kv=image_kv, image_mask=image_mask)


def select_images(image_kv: list[ImageKeyValues], images: Tensor) -> list[ImageKeyValues]:
    """Return each layer's keys and values of `images` (indices, which may repeat)."""
    return [layer.select(images) for layer in image_kv]


def init_weights(module: nn.Module, standard_deviation: float) -> None:
    """Initialize as BERT does: normal matrices, zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=standard_deviation)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            with torch.no_grad():
                part.weight[part.padding_idx].zero_()
