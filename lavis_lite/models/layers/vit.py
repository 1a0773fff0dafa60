"""BLIP's vision transformer: timm's, with BLIP's sizes, epsilon and drop path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def size_errors(sizes: object, limits: Mapping[str, int], width: str, heads: str) -> list[tuple[str, str]]:
    """Return an error for each size that is not from 1 to its limit, and for heads that do not divide width.

    Args:
        sizes: has all the attributes.
        limits: attribute -> largest value, which no real model reaches.
        width: attribute with the width.
        heads: attribute with the number of attention heads.
    """
    errors = [
        (name, f"must be from 1 to {limit}, found {getattr(sizes, name)}.")
        for name, limit in limits.items()
        if not 1 <= getattr(sizes, name) <= limit
    ]
    if not errors and getattr(sizes, width) % getattr(sizes, heads):
        text = f"{getattr(sizes, heads)} heads do not divide {width} {getattr(sizes, width)}."
        errors.append((heads, text))
    return errors


@dataclass
class VisionSizes:
    """Sizes of a vision transformer."""

    embed_dim: int
    depth: int
    num_heads: int
    patch_size: int = 16

    def check(self) -> list[tuple[str, str]]:
        """Return an error for each size that is impossible or does not fit the others."""
        limits = {"embed_dim": 65536, "depth": 1024, "num_heads": 1024, "patch_size": 1024}
        return size_errors(self, limits, width="embed_dim", heads="num_heads")


NAMED_SIZES = {
    "base": VisionSizes(embed_dim=768, depth=12, num_heads=12),
    "large": VisionSizes(embed_dim=1024, depth=24, num_heads=16),
}
# Drop path rate of the published recipes, for a config that sets none.
DEFAULT_DROP_PATH = {"base": 0.0, "large": 0.1}


class BlipVisionTransformer(VisionTransformer):
    """A vision transformer that returns all its tokens, [CLS] first, after the final norm.

    Args:
        sizes: width, depth, heads and patch size.
        image_size: side of the square input in pixels.
        drop_path_rate: of the last block; it falls linearly to 0 at the first.
        layer_norm_epsilon: of all layer norms.
        checkpointed_blocks: number of the last blocks that recompute their activations in the backward
            pass, which saves memory and costs time.

    Raises:
        ValueError: an image size that is not a multiple of the patch size.
    """

    pos_embed: nn.Parameter

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
        self.checkpointed_blocks = checkpointed_blocks
        _init_weights(self)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Return (batch, 1 + patches, embed_dim) of images `x` (batch, 3, image_size, image_size)."""
        hidden = self._pos_embed(self.patch_embed(x))
        first_checkpointed = len(self.blocks) - self.checkpointed_blocks
        for index, block in enumerate(self.blocks):
            if index >= first_checkpointed and self.training and torch.is_grad_enabled():
                hidden = checkpoint(block, hidden, use_reentrant=False)
            else:
                hidden = block(hidden)
        return self.norm(hidden)


@torch.no_grad()
def _init_weights(vision: BlipVisionTransformer) -> None:
    """Initialize so that small transformers learn from scratch, too; published weights replace all of it."""
    # Matrices keep the spread of activations that a deviation of 0.02 gives at width 768.
    standard_deviation = 0.02 * (768 / vision.embed_dim) ** 0.5
    for parameter in vision.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=standard_deviation)
    # Positions start as sines and cosines of column and row. If they started alike, attention would
    # have to learn first to tell patches apart.
    side = vision.patch_embed.grid_size[0]
    bands = vision.embed_dim // 4
    frequencies = 0.1 ** (2 * torch.arange(bands) / bands)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [coordinate.flatten()[:, None] * frequencies for coordinate in (columns, rows)]
    waves = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    vision.pos_embed[:, 1:, : waves.shape[1]] = 0.5 * waves  # (1, patches, width)


def is_square_grid(position_embedding: Tensor) -> bool:
    """Return True for a tensor of shape (1, 1 + n * n, width), as position embeddings have."""
    if position_embedding.ndim != 3 or position_embedding.shape[0] != 1:
        return False
    patches = position_embedding.shape[1] - 1
    return patches > 0 and math.isqrt(patches) ** 2 == patches


def resize_position_embedding(position_embedding: Tensor, tokens: int) -> Tensor:
    """Return `position_embedding` (1, 1 + n * n, width) resized to (1, tokens, width).

    The grid is interpolated bicubically and [CLS] stays, as BLIP does for other image sizes.

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
