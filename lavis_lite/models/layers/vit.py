"""BLIP's vision transformer: timm's, with the sizes, epsilon and drop path that BLIP gives it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lavis_lite.models.layers.linear import use_fast_linear


def impossible_sizes(sizes: object, limits: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return complaints about attributes that are not from 1 to their limit, which no model exceeds."""
    return [
        (name, f"must be from 1 to {limit}, found {getattr(sizes, name)}.")
        for name, limit in limits.items()
        if not 1 <= getattr(sizes, name) <= limit
    ]


@dataclass
class VisionSizes:
    """Sizes of a vision transformer."""

    embed_dim: int
    depth: int
    num_heads: int
    patch_size: int = 16

    def check(self) -> list[tuple[str, str]]:
        """Return complaints about sizes that are impossible, or do not fit each other."""
        limits = {"embed_dim": 65536, "depth": 1024, "num_heads": 1024, "patch_size": 1024}
        impossible = impossible_sizes(self, limits)
        if impossible:
            return impossible
        if self.embed_dim % self.num_heads:
            return [("num_heads", f"{self.num_heads} heads do not divide embed_dim {self.embed_dim}.")]
        return []


NAMED_SIZES = {
    "base": VisionSizes(embed_dim=768, depth=12, num_heads=12),
    "large": VisionSizes(embed_dim=1024, depth=24, num_heads=16),
}
# Drop path of the published recipes where a config names none.
DEFAULT_DROP_PATH = {"base": 0.0, "large": 0.1}


class ImageByImageAttention(Attention):
    """timm's attention; in bfloat16 on a CPU, without gradients, one image after the other.

    There the fused kernel takes twice as long as two plain products whose scores fit the cache.
    """

    def forward(self, x: Tensor, *masks: object, **named_masks: object) -> Tensor:
        if torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x, *masks, **named_masks)
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (images, tokens, 3, heads, head_dim)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)
        if queries.dtype == torch.bfloat16:
            context = torch.stack(
                [
                    ((query * self.scale) @ key.mT).softmax(-1) @ value
                    for query, key, value in zip(queries, keys, values, strict=True)
                ]
            )
        else:
            context = F.scaled_dot_product_attention(queries, keys, values)
        return self.proj(context.transpose(1, 2).flatten(2))


class BlipVisionTransformer(VisionTransformer):
    """All tokens of an image, [CLS] first, after the final norm; nothing is pooled.

    Args:
        sizes: width, depth, heads, patch.
        image_size: side of the square input in pixels.
        drop_path_rate: of the last block; the blocks before have linearly less.
        checkpointed_blocks: how many of the last blocks recompute their activations in the
            backward pass, which saves memory and costs time.
    """

    def __init__(
        self,
        sizes: VisionSizes,
        image_size: int,
        drop_path_rate: float = 0.0,
        layer_norm_epsilon: float = 1e-6,
        checkpointed_blocks: int = 0,
    ) -> None:
        if image_size % sizes.patch_size:
            raise ValueError(
                f"image_size {image_size} is not a multiple of patch_size {sizes.patch_size}; the "
                f"nearest is {max(1, round(image_size / sizes.patch_size)) * sizes.patch_size}."
            )
        super().__init__(
            img_size=image_size,
            patch_size=sizes.patch_size,
            embed_dim=sizes.embed_dim,
            depth=sizes.depth,
            num_heads=sizes.num_heads,
            drop_path_rate=drop_path_rate,
            norm_layer=partial(nn.LayerNorm, eps=layer_norm_epsilon),
            global_pool="",
            num_classes=0,
        )
        use_fast_linear(self)
        for block in self.blocks:
            block.attn.__class__ = ImageByImageAttention
        self.checkpointed_blocks = checkpointed_blocks
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Return (batch, 1 + patches, embed_dim) of `image` (batch, 3, image_size, image_size)."""
        hidden = self._pos_embed(self.patch_embed(image))
        first_checkpointed = len(self.blocks) - self.checkpointed_blocks
        for index, block in enumerate(self.blocks):
            if index >= first_checkpointed and self.training and torch.is_grad_enabled():
                hidden = checkpoint(block, hidden, use_reentrant=False)
            else:
                hidden = block(hidden)
        return self.norm(hidden)


@torch.no_grad()
def _initialise(vision: BlipVisionTransformer) -> None:
    """Give a transformer that starts from nothing a start that a small one can learn from.

    Matrices keep the spread of activations that 0.02 gives at width 768, and positions begin as
    sines and cosines of row and column: with positions all alike, attention first has to find
    out that there are places. Published weights replace all of it.
    """
    standard_deviation = 0.02 * (768 / vision.embed_dim) ** 0.5
    for parameter in vision.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=standard_deviation)
    side = vision.patch_embed.grid_size[0]
    bands = vision.embed_dim // 4
    frequencies = 0.1 ** (2 * torch.arange(bands) / bands)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [places.flatten()[:, None] * frequencies for places in (columns, rows)]
    waves = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    vision.pos_embed[:, 1:, : waves.shape[1]] = 0.5 * waves  # (1, patches, width)


def is_square_grid(position_embedding: Tensor) -> bool:
    """Return whether a tensor is (1, 1 + n * n, width), as position embeddings are."""
    shape = position_embedding.shape
    return (
        len(shape) == 3 and shape[0] == 1 and shape[1] > 1 and math.isqrt(shape[1] - 1) ** 2 == shape[1] - 1
    )


def resize_position_embedding(position_embedding: Tensor, tokens: int) -> Tensor:
    """Return `position_embedding` (1, 1 + n * n, width) resized to (1, tokens, width).

    The grid is interpolated bicubically, the [CLS] position kept, as BLIP does when it moves
    from 224 to 384 or 480 pixels.

    Raises:
        ValueError: one of the two grids is not square.
    """
    if position_embedding.shape[1] == tokens:
        return position_embedding
    old_side, new_side = round((position_embedding.shape[1] - 1) ** 0.5), round((tokens - 1) ** 0.5)
    if old_side**2 + 1 != position_embedding.shape[1] or new_side**2 + 1 != tokens:
        raise ValueError(
            f"Cannot resize position embeddings from {position_embedding.shape[1]} to {tokens} tokens: "
            "both must be one [CLS] token and a square grid of patches."
        )
    cls_token, grid = position_embedding[:, :1], position_embedding[:, 1:]
    grid = grid.mT.unflatten(-1, (old_side, old_side))  # (1, width, side, side)
    grid = F.interpolate(grid, size=(new_side, new_side), mode="bicubic", align_corners=False)
    return torch.cat((cls_token, grid.flatten(2).mT), dim=1)
