"""Where the matching head looks: GradCAM over the cross-attention of one layer.

The weight of a patch for a word is the attention that the word pays it, times how much more
attention would raise the logit for a match, where it would raise it, averaged over the heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

    from lavis_lite.models.blip_models.matcher import BlipMatcher

# From cold to hot: red, green and blue of evenly spaced heats.
_HEATS = ((0, 0, 128), (0, 64, 255), (0, 220, 220), (128, 240, 96), (255, 220, 0), (255, 96, 0), (160, 0, 0))


def compute_gradcam(
    model: BlipMatcher,
    visual_input: Tensor,
    text_input: Sequence[str],
    tokenized_text: Mapping[str, Tensor] | None = None,
    block_num: int = 6,
) -> tuple[list[Tensor], Tensor]:
    """Return a heat map of the image for every token of its text, and the match logits (images, 2).

    Each image's maps are one tensor (1 + length, rows, columns) on the CPU, one cell a patch, none
    below zero: first that of [ENC], which speaks for the whole text, then the mean of the words, then
    each token after the first as it stands in the text ([SEP] last).

    Args:
        visual_input: (images, 3, image_size, image_size).
        text_input: one text an image.
        tokenized_text: `input_ids` and `attention_mask` of the texts, if they are at hand already.
        block_num: the layer to look into; 6 is the one of BLIP's predecessor ALBEF and of LAVIS.

    Raises:
        ValueError: not one text an image, or no such layer.
    """
    layers = model.text_encoder.layers
    if not 0 <= block_num < len(layers):
        raise ValueError(f"block_num is {block_num}; the model has layers 0 to {len(layers) - 1}.")
    if len(text_input) != len(visual_input):
        raise ValueError(f"{len(text_input)} texts for {len(visual_input)} images; give one text an image.")
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
    looked_into = model.text_encoder.layers[layer].crossattention
    modes = {part: part.training for part in model.modules()}
    model.eval()
    looked_into.keep_map = True
    try:
        with torch.no_grad():
            image_kv = model.text_encoder.project_image(model.encode_image(image))
        with torch.enable_grad():
            logits = model.match_logits(input_ids, attention_mask, image_kv)
            attention = looked_into.kept_map
            (gradient,) = torch.autograd.grad(logits[:, 1].sum(), attention)
    finally:
        looked_into.keep_map, looked_into.kept_map = False, None
        for part, was_training in modes.items():
            part.training = was_training
    return logits.detach(), attention.detach(), gradient


def _with_mean(maps: Tensor) -> Tensor:
    """Return `maps` (length, rows, columns) with the mean of the words put in second place."""
    words = maps[1:-1] if len(maps) > 2 else maps[1:]
    return torch.cat((maps[:1], words.mean(0, keepdim=True), maps[1:]))


def draw_heat_map(image: Image.Image, heat: Tensor, opacity: float = 0.55) -> Image.Image:
    """Return `image` with `heat` (rows, columns) laid over it: blue is cold, red the hottest patch.

    Args:
        opacity: of the colours, at the hottest patch; the coldest ones let the image through.

    Raises:
        ValueError: `heat` is no map of patches.
    """
    from PIL import Image

    if heat.ndim != 2:
        raise ValueError(f"heat has shape {tuple(heat.shape)}; give one map, (rows, columns).")
    heat = heat.detach().float().cpu()
    span = heat.max() - heat.min()
    heat = (heat - heat.min()) / span if span > 0 else torch.zeros_like(heat)
    grey = Image.fromarray((heat * 255).round().byte().numpy()).resize(image.size, Image.Resampling.BICUBIC)
    colours = grey.convert("P")
    colours.putpalette(_palette())
    mask = grey.point([round(level * opacity) for level in range(256)])
    return Image.composite(colours.convert("RGB"), image.convert("RGB"), mask)


def _palette() -> list[int]:
    palette = []
    for level in range(256):
        place = level / 255 * (len(_HEATS) - 1)
        below = min(int(place), len(_HEATS) - 2)
        share = place - below
        palette += [round(a + (b - a) * share) for a, b in zip(_HEATS[below], _HEATS[below + 1], strict=True)]
    return palette
