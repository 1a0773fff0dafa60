"""Attention of the text transformer: to its own tokens, to one image, to two images."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite.models.layers.text_config import TextConfig

FEW_QUERIES = 16


class ImageKeyValues(NamedTuple):
    """Keys and values of images in one layer's cross-attention, (images, heads, tokens, head_dim) each.

    For pairs of images (NLVR): (pairs, 2, heads, tokens, head_dim).
    """

    keys: Tensor
    values: Tensor

    def contiguous(self) -> ImageKeyValues:
        """Return them contiguous in memory, head by head."""
        return ImageKeyValues(self.keys.contiguous(), self.values.contiguous())

    def select(self, images: Tensor) -> ImageKeyValues:
        """Return those of `images` (indices, which may repeat)."""
        return ImageKeyValues(self.keys[images], self.values[images])


class SelfAttentionCache:
    """Keys and values of the tokens so far, in buffers of fixed size.

    A row's tokens are in slots 0 .. length - 1; rows may have different lengths.
    """

    def __init__(self, config: TextConfig, rows: int, max_length: int, like: Tensor) -> None:
        heads = config.num_attention_heads
        shape = (config.num_hidden_layers, rows, heads, max_length, config.hidden_size // heads)
        self.keys = like.new_zeros(shape)
        self.values = like.new_zeros(shape)
        self._spare: tuple[Tensor, Tensor] | None = None  # reused by `select`

    @property
    def max_length(self) -> int:
        """Maximum tokens of a row."""
        return self.keys.shape[3]

    def write(self, layer: int, positions: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values (rows, heads, new, head_dim) at `positions` (rows, new); return all."""
        rows = torch.arange(positions.shape[0], device=positions.device)[:, None]  # (rows, 1)
        self.keys[layer][rows, :, positions] = keys.transpose(1, 2).to(self.keys.dtype)
        self.values[layer][rows, :, positions] = values.transpose(1, 2).to(self.values.dtype)
        return self.keys[layer], self.values[layer]

    def select(self, rows: Tensor) -> None:
        """Keep `rows` (indices, which may repeat) in this order."""
        shape = (self.keys.shape[0], len(rows), *self.keys.shape[2:])
        if self._spare is None or self._spare[0].shape != shape:
            self._spare = (self.keys.new_empty(shape), self.values.new_empty(shape))
        spare_keys, spare_values = self._spare
        self._spare = (self.keys, self.values)
        self.keys = torch.index_select(self.keys, 1, rows, out=spare_keys)
        self.values = torch.index_select(self.values, 1, rows, out=spare_values)


class PostNorm(nn.Module):
    """Project to the width of the residual, add it and normalize (BERT's post-layer norm)."""

    def __init__(self, config: TextConfig, input_width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(input_width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(hidden)) + residual)


class Attention(nn.Module):
    """Multi-head attention and its output block.

    Args:
        config: sizes.
        key_width: width of the states that are attended to.

    Attributes:
        records_weights: set it to have the next call leave its attention weights in `recorded_weights`.
        recorded_weights: (batch, heads, queries, keys), or None.
    """

    def __init__(self, config: TextConfig, key_width: int) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        # The published checkpoints call this part `self`.
        self.self = _projections(config, key_width)
        self.output = PostNorm(config, config.hidden_size)
        self.records_weights = False
        self.recorded_weights: Tensor | None = None

    def project_keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (batch, heads, tokens, head_dim) of `states` (batch, tokens, key_width)."""
        return _project_keys_values(self.self, states, self.heads)

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from `hidden` (batch, tokens, width); `mask` is true where attention is allowed."""
        queries = _split_heads(self.self["query"](hidden), self.heads)
        if self.records_weights:
            context, self.recorded_weights = _attend_unfused(queries, keys, values, mask)
        else:
            context = _attend(queries, keys, values, mask, self.dropout if self.training else 0.0)
        return self.output(_join_heads(context), hidden)  # (batch, tokens, width)


class TwoImagePostNorm(nn.Module):
    """`PostNorm` of the contexts of two images: of their mean, or if it `merges` of a learned mixture."""

    def __init__(self, config: TextConfig, merges: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.dense0 = nn.Linear(width, width)
        self.dense1 = nn.Linear(width, width)
        self.merge_layer = nn.Linear(2 * width, width) if merges else None
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
    """NLVR's cross-attention: each image of a pair has its projections (paper section 5.4)."""

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
        """Attend from `hidden` (pairs, tokens, width); `mask` is true where attention is allowed."""
        dropout = self.dropout if self.training else 0.0
        contexts = []
        for index, projections in enumerate((self.self0, self.self1)):
            queries = _split_heads(projections["query"](hidden), self.heads)
            context = _attend(queries, keys[:, index], values[:, index], mask, dropout)
            contexts.append(_join_heads(context))
        return self.output(*contexts, hidden)


def _projections(config: TextConfig, key_width: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {
            "query": nn.Linear(config.hidden_size, config.hidden_size),
            "key": nn.Linear(key_width, config.hidden_size),
            "value": nn.Linear(key_width, config.hidden_size),
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
    if mask is None and _is_cpu_decoding(queries):
        return _attend_unfused(queries, keys, values, mask)[0]
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=dropout)


def _is_cpu_decoding(queries: Tensor) -> bool:
    """Return True for few queries on a CPU, where two plain products are faster than the fused kernel."""
    return (
        queries.shape[2] <= FEW_QUERIES
        and queries.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def _attend_unfused(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the context and the attention weights (batch, heads, queries, keys)."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.to(queries.dtype).mT
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1)
    if torch.is_grad_enabled() and not weights.requires_grad:
        weights.requires_grad_()  # of frozen layers, for GradCAM
    return weights @ values.to(queries.dtype), weights
