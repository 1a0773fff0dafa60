"""The text transformer of BLIP: one network that plays three roles (paper section 3.1).

It is BERT with an image cross-attention between the self-attention and the MLP of every layer:

=============  ====================  ===============  =======================================
mode           self-attention        cross-attention  used for
=============  ====================  ===============  =======================================
``text``       both directions       skipped          text embeddings (ITC)
``multimodal`` both directions       to the image     image-text matching, questions, NLVR
``decoder``    to the left only      to the image     captions, answers
=============  ====================  ===============  =======================================

The mode is an argument of the call, not a property of the weights. The first token tells the
weights which role they play: [CLS] for text, [ENC] for multimodal, [DEC] for decoder.

**An image is projected once.** The keys and values of cross-attention depend on the image alone,
so `TextTransformer.project_image` computes them for all layers, and everything else reuses them.
Several texts about one image (beams, candidate captions, references) lie side by side on the
query axis: `hidden` of shape (images * texts, length, width) meets an image's keys as
(images, texts * length, width), and nothing of the image is copied.

Module names follow the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Mode = Literal["text", "multimodal", "decoder"]


@dataclass
class TextConfig:
    """Sizes of the text transformer; the defaults are BERT-base's, as BLIP uses it.

    `vocab_size` None means as many as the tokenizer has; `encoder_width` None means the width
    of the vision transformer.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    max_position_embeddings: int = 512
    initializer_range: float = 0.02
    vocab_size: int | None = None
    encoder_width: int | None = None
    pad_token_id: int = 0
    hidden_act: Literal["gelu"] = "gelu"
    add_cross_attention: Literal[True] = True

    # What BERT's config files say besides, and what makes no difference to this network.
    inert_keys: ClassVar[frozenset[str]] = frozenset(
        {
            "architectures",
            "classifier_dropout",
            "fusion_layer",
            "gradient_checkpointing",
            "model_type",
            "position_embedding_type",
            "transformers_version",
            "type_vocab_size",
            "use_cache",
        }
    )

    def check(self) -> list[tuple[str, str]]:
        """Return complaints about sizes that do not fit each other."""
        if self.hidden_size % self.num_attention_heads:
            return [
                (
                    "num_attention_heads",
                    f"{self.num_attention_heads} heads do not divide hidden_size {self.hidden_size}.",
                )
            ]
        return []


class ImageKeyValues(NamedTuple):
    """An image as one layer's cross-attention sees it: two tensors (images, heads, tokens, head_dim)."""

    keys: Tensor
    values: Tensor


class SelfAttentionCache:
    """Keys and values of the tokens so far, in buffers of fixed size: no growing concatenation.

    Row r holds its tokens in slots 0 .. length - 1; rows may have different lengths.
    """

    def __init__(self, config: TextConfig, rows: int, max_length: int, like: Tensor) -> None:
        heads = config.num_attention_heads
        shape = (config.num_hidden_layers, rows, heads, max_length, config.hidden_size // heads)
        self.keys = like.new_zeros(shape)
        self.values = like.new_zeros(shape)

    @property
    def max_length(self) -> int:
        """How many tokens a row can hold."""
        return self.keys.shape[3]

    def write(self, layer: int, positions: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values (rows, heads, new, head_dim) at `positions` (rows, new); return all."""
        rows = torch.arange(positions.shape[0], device=positions.device)[:, None]  # (rows, 1)
        self.keys[layer][rows, :, positions] = keys.transpose(1, 2).to(self.keys.dtype)
        self.values[layer][rows, :, positions] = values.transpose(1, 2).to(self.values.dtype)
        return self.keys[layer], self.values[layer]

    def select(self, rows: Tensor) -> None:
        """Keep the given rows, in the given order; a row may be taken several times."""
        self.keys = self.keys.index_select(1, rows)
        self.values = self.values.index_select(1, rows)


class PostNorm(nn.Module):
    """Project back to the width, then add the residual and normalise (BERT's post-layer norm)."""

    def __init__(self, config: TextConfig, input_width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(input_width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(hidden)) + residual)


class Attention(nn.Module):
    """Multi-head attention with its output block; `key_width` is the width of what is attended to."""

    def __init__(self, config: TextConfig, key_width: int) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        # The published checkpoints call this part `self`.
        self.self = nn.ModuleDict(
            {
                "query": nn.Linear(config.hidden_size, config.hidden_size),
                "key": nn.Linear(key_width, config.hidden_size),
                "value": nn.Linear(key_width, config.hidden_size),
            }
        )
        self.output = PostNorm(config, config.hidden_size)

    def split_heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (batch, heads, tokens, head_dim)

    def project_keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (batch, heads, tokens, head_dim) of `states` (batch, tokens, key_width)."""
        return self.split_heads(self.self["key"](states)), self.split_heads(self.self["value"](states))

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from `hidden` (batch, tokens, width); `mask` is true where attention may go."""
        queries = self.split_heads(self.self["query"](hidden))
        context = F.scaled_dot_product_attention(
            queries,
            keys.to(queries.dtype),
            values.to(queries.dtype),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.output(context.transpose(1, 2).flatten(2), hidden)  # (batch, tokens, width)


class TextLayer(nn.Module):
    """Self-attention, cross-attention to the image, MLP."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.attention = Attention(config, config.hidden_size)
        self.crossattention = Attention(config, config.encoder_width or config.hidden_size)
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
    """Word plus position embeddings, normalised. BLIP has no token types."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        # Not needed to compute anything; the published checkpoints carry it.
        self.register_buffer("position_ids", torch.arange(config.max_position_embeddings)[None])

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        return self.dropout(
            self.LayerNorm(self.word_embeddings(input_ids) + self.position_embeddings(positions))
        )


class TextTransformer(nn.Module):
    """The stack of `TextLayer`: text encoder, image-grounded encoder or decoder, as each call says."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TextEmbeddings(config)
        layers = nn.ModuleList(TextLayer(config) for _ in range(config.num_hidden_layers))
        self.encoder = nn.ModuleDict({"layer": layers})
        initialise(self, config.initializer_range)

    @property
    def layers(self) -> nn.ModuleList:
        """The layers, first to last."""
        return self.encoder["layer"]

    def project_image(self, image_embeds: Tensor) -> list[ImageKeyValues]:
        """Return each layer's keys and values of `image_embeds` (images, tokens, encoder_width)."""
        return [
            ImageKeyValues(*layer.crossattention.project_keys_values(image_embeds)) for layer in self.layers
        ]

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
            image_kv: from `project_image`; needed by every mode but ``text``.
            image_mask: (images, 1, 1, image tokens), true where attention may go; None: everywhere.
            cache: in ``decoder`` mode, the tokens before these; these are added to it.
            positions: (rows, length) place of each token in its row; None: 0 .. length - 1.
        """
        assert (image_kv is None) == (mode == "text"), f"mode {mode!r} and image_kv do not go together"
        assert cache is None or mode == "decoder", "only the decoder grows token by token"
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
    """Return (rows, 1, queries, keys), true where attention may go, or None for everywhere.

    Padding stands on the right, so no query is ever left without a key: position 0 is a token.
    """
    mask = None
    if mode == "decoder":
        key_count = cache.max_length if cache is not None else positions.shape[1]
        slots = torch.arange(key_count, device=positions.device)
        mask = slots <= positions[:, None, :, None]  # causal; the cache's unused slots lie to the right
    if attention_mask is not None and cache is None:
        padding = attention_mask[:, None, None, :].bool()
        mask = padding if mask is None else mask & padding
    return mask


class LanguageModelHead(nn.Module):
    """From hidden states to vocabulary logits; the projection is the word embedding matrix itself."""

    def __init__(self, config: TextConfig, word_embeddings: nn.Embedding) -> None:
        super().__init__()
        self.transform = nn.ModuleDict(
            {
                "dense": nn.Linear(config.hidden_size, config.hidden_size),
                "LayerNorm": nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps),
            }
        )
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        initialise(self, config.initializer_range)
        self.decoder.weight = word_embeddings.weight
        self.bias = self.decoder.bias  # one parameter, which checkpoints hold under both names

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.transform["LayerNorm"](F.gelu(self.transform["dense"](hidden)))
        return self.decoder(hidden)  # (..., vocab_size)


class TextDecoder(nn.Module):
    """The text transformer in its decoder role, with a language-model head."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = TextTransformer(config)
        head = LanguageModelHead(config, self.bert.embeddings.word_embeddings)
        self.cls = nn.ModuleDict({"predictions": head})

    @property
    def head(self) -> LanguageModelHead:
        """The language-model head."""
        return self.cls["predictions"]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        image_kv: list[ImageKeyValues],
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the hidden states (rows, length, hidden_size) of whole texts, for `head`."""
        return self.bert(input_ids, attention_mask, mode="decoder", image_kv=image_kv, image_mask=image_mask)


class CachedDecoder:
    """A `TextDecoder` that goes on from where it stopped; what `generation.py` drives.

    Args:
        decoder: the network.
        image_kv: `TextTransformer.project_image` of the images.
        max_length: tokens a row may reach, the prompt included.
    """

    def __init__(
        self,
        decoder: TextDecoder,
        image_kv: list[ImageKeyValues],
        max_length: int,
        image_mask: Tensor | None = None,
    ) -> None:
        self.decoder = decoder
        self.image_kv = image_kv
        self.image_mask = image_mask
        images = image_kv[0].keys.shape[0]
        self.cache = SelfAttentionCache(decoder.config, images, max_length, like=image_kv[0].keys)
        self.lengths = torch.zeros(images, dtype=torch.long, device=image_kv[0].keys.device)

    def prefill(self, input_ids: Tensor, lengths: Tensor) -> Tensor:
        """Read the prompts (images, longest), padded on the right, and return logits (images, vocab_size).

        Padding enters the cache, in slots that are masked until a generated token overwrites them.
        """
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        hidden = self._run(input_ids, positions)
        self.lengths = lengths
        last = hidden[torch.arange(len(lengths), device=lengths.device), lengths - 1]
        return self.decoder.head(last)

    def step(self, token_ids: Tensor) -> Tensor:
        """Append one token to each row (rows,) and return logits (rows, vocab_size) of the next."""
        # A row that is full is finished; what it goes on to compute is thrown away.
        positions = self.lengths.clamp(max=self.cache.max_length - 1)
        hidden = self._run(token_ids[:, None], positions[:, None])
        self.lengths = self.lengths + 1
        return self.decoder.head(hidden[:, -1])

    def select(self, rows: Tensor) -> None:
        """Go on with the given rows; the rows of an image must stay adjacent and equally many."""
        self.cache.select(rows)
        self.lengths = self.lengths[rows]

    def _run(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        return self.decoder.bert(
            input_ids,
            mode="decoder",
            image_kv=self.image_kv,
            image_mask=self.image_mask,
            cache=self.cache,
            positions=positions,
        )


def initialise(module: nn.Module, standard_deviation: float) -> None:
    """Draw weights as BERT does: normal matrices, zero biases, layer norms at identity."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=standard_deviation)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            with torch.no_grad():
                part.weight[part.padding_idx].zero_()


def without_inert_keys(config: Mapping[str, object]) -> dict[str, object]:
    """Return a BERT-style config mapping without the keys that mean nothing to this network."""
    return {key: value for key, value in config.items() if key not in TextConfig.inert_keys}
