"""GradCAM of the matching head over the cross-attention of one layer.

The weight of a patch for a token is the token's attention to the patch times the gradient of the match
logit in that attention, where the gradient is positive, averaged over the heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lavis_lite.models.layers.attention import Attention

if TYPE_CHECKING:
    from PIL import Image

    from lavis_lite.models.blip_models.matcher import BlipMatcher

# Red, green and blue at evenly spaced heats, from cold to hot.
_HEAT_COLORS = (
    (0, 0, 128),
    (0, 64, 255),
    (0, 220, 220),
    (128, 240, 96),
    (255, 220, 0),
    (255, 96, 0),
    (160, 0, 0),
)


def compute_gradcam(
    model: BlipMatcher,
    visual_input: Tensor,
    text_input: Sequence[str],
    tokenized_text: Mapping[str, Tensor] | None = None,
    block_num: int = 6,
) -> tuple[list[Tensor], Tensor]:
    """Return heat maps of each image, one for each token of its text, and the match logits (images, 2).

    The maps of an image are a tensor (1 + length, rows, columns) on the CPU with a cell for each patch,
    0 or more: first that of [ENC], which stands for the whole text; then the mean of the words; then the
    tokens after the first, in order, [SEP] last.

    Args:
        model: a matcher.
        visual_input: (images, 3, image_size, image_size).
        text_input: one text for each image.
        tokenized_text: `input_ids` and `attention_mask` of the texts; None tokenizes them.
        block_num: the layer; 6 is that of ALBEF and LAVIS.

    Raises:
        ValueError: not one text for each image, or no such layer.
    """
    layers = model.text_encoder.layers
    if not 0 <= block_num < len(layers):
        raise ValueError(f"block_num is {block_num}; the model has layers 0 to {len(layers) - 1}.")
    if len(text_input) != len(visual_input):
        raise ValueError(
            f"{len(text_input)} texts for {len(visual_input)} images; give one text for each image."
        )
    if tokenized_text is None:
        input_ids, attention_mask = model.tokenize(text_input)
    else:
        input_ids, attention_mask = (
            tokenized_text[key].to(model.device) for key in ("input_ids", "attention_mask")
        )
    logits, attention, gradient = _attention_and_gradient(
        model, visual_input, input_ids, attention_mask, block_num
    )
    heat = (attention * gradient.clamp(min=0)).mean(1)[:, :, 1:]  # (images, length, patches)
    maps = heat.unflatten(-1, model.visual_encoder.patch_embed.grid_size).float().cpu()
    lengths = attention_mask.sum(1).tolist()
    return [_with_mean(of_image[:length]) for of_image, length in zip(maps, lengths, strict=True)], logits


def _attention_and_gradient(
    model: BlipMatcher, image: Tensor, input_ids: Tensor, attention_mask: Tensor, layer: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (images, 2), attention and its gradient, both (images, heads, length, image tokens)."""
    cross_attention = model.text_encoder.layers[layer].crossattention
    assert isinstance(cross_attention, Attention)
    modes = {part: part.training for part in model.modules()}
    model.eval()
    cross_attention.records_weights = True
    try:
        with torch.no_grad():
            image_kv = model.text_encoder.project_image(model.encode_image(image))
        with torch.enable_grad():
            logits = model.match_logits(input_ids, attention_mask, image_kv)
            attention = cross_attention.recorded_weights
            assert attention is not None
            (gradient,) = torch.autograd.grad(logits[:, 1].sum(), attention)
    finally:
        cross_attention.records_weights, cross_attention.recorded_weights = False, None
        for part, was_training in modes.items():
            part.training = was_training
    return logits.detach(), attention.detach(), gradient


def _with_mean(maps: Tensor) -> Tensor:
    """Return `maps` (length, rows, columns) with the mean of the words inserted after the first."""
    words = maps[1:-1] if len(maps) > 2 else maps[1:]
    return torch.cat((maps[:1], words.mean(0, keepdim=True), maps[1:]))


def draw_heat_map(image: Image.Image, heat: Tensor, opacity: float = 0.55) -> Image.Image:
    """Return `image` under a color map of `heat`, from blue (cold) to red (hot).

    Args:
        image: in any mode.
        heat: (rows, columns), a value for each patch.
        opacity: of the colors at the hottest patch; at the coldest it is 0.

    Raises:
        ValueError: `heat` is not a map of patches.
    """
    from PIL import Image

    if heat.ndim != 2:
        raise ValueError(f"heat has shape {tuple(heat.shape)}; give one map, (rows, columns).")
    heat = heat.detach().float().cpu()
    span = heat.max() - heat.min()
    heat = (heat - heat.min()) / span if span > 0 else torch.zeros_like(heat)
    gray = Image.fromarray((heat * 255).round().byte().numpy()).resize(image.size, Image.Resampling.BICUBIC)
    colors = gray.convert("P")
    colors.putpalette(_palette())
    mask = gray.point([round(level * opacity) for level in range(256)])
    return Image.composite(colors.convert("RGB"), image.convert("RGB"), mask)


def _palette() -> list[int]:
    palette = []
    for level in range(256):
        position = level / 255 * (len(_HEAT_COLORS) - 1)
        below = min(int(position), len(_HEAT_COLORS) - 2)
        share = position - below
        palette += [
            round(a + (b - a) * share)
            for a, b in zip(_HEAT_COLORS[below], _HEAT_COLORS[below + 1], strict=True)
        ]
    return palette
