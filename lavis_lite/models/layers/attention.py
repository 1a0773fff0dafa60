"""Attention as the text transformer uses it: to itself, to one image, to two."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite.models.layers.linear import Linear
from lavis_lite.models.layers.text_config import TextConfig

FEW_QUERIES = 16


class ImageKeyValues(NamedTuple):
    """Images as one layer's cross-attention sees them: two tensors (images, heads, tokens, head_dim).

    Of pairs of images (NLVR): (pairs, 2, heads, tokens, head_dim).
    """

    keys: Tensor
    values: Tensor

    def contiguous(self) -> ImageKeyValues:
        """Return them laid out head by head, as repeated reading wants them."""
        return ImageKeyValues(self.keys.contiguous(), self.values.contiguous())

    def select(self, images: Tensor) -> ImageKeyValues:
        """Return those of `images` (indices; an image may be taken several times)."""
        return ImageKeyValues(self.keys[images], self.values[images])


class SelfAttentionCache:
    """Keys and values of the tokens so far, in buffers of fixed size: no growing concatenation.

    Row r holds its tokens in slots 0 .. length - 1; rows may have different lengths.
    """

    def __init__(self, config: TextConfig, rows: int, max_length: int, like: Tensor) -> None:
        heads = config.num_attention_heads
        shape = (config.num_hidden_layers, rows, heads, max_length, config.hidden_size // heads)
        self.keys = like.new_zeros(shape)
        self.values = like.new_zeros(shape)
        self._spare: tuple[Tensor, Tensor] | None = None  # where `select` writes; memory is taken once

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
        shape = (self.keys.shape[0], len(rows), *self.keys.shape[2:])
        if self._spare is None or self._spare[0].shape != shape:
            self._spare = (self.keys.new_empty(shape), self.values.new_empty(shape))
        old = (self.keys, self.values)
        self.keys, self.values = (
            torch.index_select(tensor, 1, rows, out=spare)
            for tensor, spare in zip(old, self._spare, strict=True)
        )
        self._spare = old


class PostNorm(nn.Module):
    """Project back to the width, then add the residual and normalise (BERT's post-layer norm)."""

    def __init__(self, config: TextConfig, input_width: int) -> None:
        super().__init__()
        self.dense = Linear(input_width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(hidden)) + residual)


class Attention(nn.Module):
    """Multi-head attention with its output block; `key_width` is the width of what is attended to.

    With `keep_map` set, the attention weights (batch, heads, queries, keys) of the last call are
    left in `kept_map`, for who wants to look at them; they are not materialised otherwise.
    """

    def __init__(self, config: TextConfig, key_width: int) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        # The published checkpoints call this part `self`.
        self.self = _projections(config, key_width)
        self.output = PostNorm(config, config.hidden_size)
        self.keep_map = False
        self.kept_map: Tensor | None = None

    def project_keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (batch, heads, tokens, head_dim) of `states` (batch, tokens, key_width)."""
        return _project_keys_values(self.self, states, self.heads)

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from `hidden` (batch, tokens, width); `mask` is true where attention may go."""
        queries = _split_heads(self.self["query"](hidden), self.heads)
        if self.keep_map:
            context, self.kept_map = _attend_by_hand(queries, keys, values, mask)
        else:
            context = _attend(queries, keys, values, mask, self.dropout if self.training else 0.0)
        return self.output(_join_heads(context), hidden)  # (batch, tokens, width)


class TwoImagePostNorm(nn.Module):
    """`PostNorm` of what was seen in two images: their mean, or in upper layers a learned mixture."""

    def __init__(self, config: TextConfig, merges: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.dense0 = Linear(width, width)
        self.dense1 = Linear(width, width)
        self.merge_layer = Linear(2 * width, width) if merges else None
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, first: Tensor, second: Tensor, residual: Tensor) -> Tensor:
        first, second = self.dense0(first), self.dense1(second)
        if self.merge_layer is None:
            both = (first + second) / 2
        else:
            both = self.merge_layer(torch.cat((first, second), dim=-1))
        return self.LayerNorm(self.dropout(both) + residual)


class TwoImageAttention(nn.Module):
    """NLVR's cross-attention: to each image of a pair with weights of its own (paper section 5.4)."""

    def __init__(self, config: TextConfig, key_width: int, merges: bool) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.self0 = _projections(config, key_width)
        self.self1 = _projections(config, key_width)
        self.output = TwoImagePostNorm(config, merges)

    def project_keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (pairs, 2, heads, tokens, head_dim) of (pairs, 2, tokens, key_width)."""
        first = _project_keys_values(self.self0, states[:, 0], self.heads)
        second = _project_keys_values(self.self1, states[:, 1], self.heads)
        return torch.stack((first[0], second[0]), 1), torch.stack((first[1], second[1]), 1)

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from `hidden` (pairs, tokens, width); `mask` is true where attention may go."""
        dropout = self.dropout if self.training else 0.0
        seen = []
        for index, projections in enumerate((self.self0, self.self1)):
            queries = _split_heads(projections["query"](hidden), self.heads)
            seen.append(_join_heads(_attend(queries, keys[:, index], values[:, index], mask, dropout)))
        return self.output(*seen, hidden)


def _projections(config: TextConfig, key_width: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "query": Linear(config.hidden_size, config.hidden_size),
            "key": Linear(key_width, config.hidden_size),
            "value": Linear(key_width, config.hidden_size),
        }
    )


def _project_keys_values(projections: nn.ModuleDict, states: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    return _split_heads(projections["key"](states), heads), _split_heads(projections["value"](states), heads)


def _split_heads(states: Tensor, heads: int) -> Tensor:
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)  # (batch, heads, tokens, head_dim)


def _join_heads(context: Tensor) -> Tensor:
    return context.transpose(1, 2).flatten(2)  # (batch, tokens, width)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    keys, values = keys.to(queries.dtype), values.to(queries.dtype)
    if mask is None and _is_a_decoding_step(queries):
        return _attend_by_hand(queries, keys, values, mask)[0]
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=dropout)


def _is_a_decoding_step(queries: Tensor) -> bool:
    """Whether so few queries meet an image on a CPU that two plain products are faster than fused ones."""
    return (
        queries.shape[2] <= FEW_QUERIES
        and queries.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def _attend_by_hand(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the context, and the weights (batch, heads, queries, keys) that it came from."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.to(queries.dtype).mT
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1)
    if torch.is_grad_enabled() and not weights.requires_grad:
        weights.requires_grad_()  # of frozen layers: who looks at the map wants its gradient
    return weights @ values.to(queries.dtype), weights
