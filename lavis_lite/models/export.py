"""A captioner as two graphs for other runtimes: an image encoder, and one step of the decoder.

The encoder runs once for each image, the step once for each token; the runtime does the search (greedy,
beams). Both take any number of images; the step has `rows_per_image` rows for each.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lavis_lite.models.blip_models.blip_caption import BlipCaption
from lavis_lite.models.layers.attention import ImageKeyValues

ENCODER_OUTPUTS = ("image_embeds", "image_keys", "image_values")
STEP_INPUTS = ("token_ids", "positions", "self_keys", "self_values", "image_keys", "image_values")
STEP_OUTPUTS = ("logits", "new_self_keys", "new_self_values")


class ImageEncoder(nn.Module):
    """From pixels to the keys and values that the decoder reads."""

    def __init__(self, model: BlipCaption) -> None:
        super().__init__()
        self.visual_encoder = model.visual_encoder
        self.text_model = model.text_decoder.bert

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return image_embeds (images, tokens, width), keys and values.

        The latter are (layers, images, heads, tokens, head_dim).
        """
        image_embeds = self.visual_encoder(image)
        layers = self.text_model.project_image(image_embeds)
        keys = torch.stack([layer.keys for layer in layers])
        return image_embeds, keys, torch.stack([layer.values for layer in layers])


class DecodingStep(nn.Module):
    """Reads one token of each row. It has no state: the caches are inputs and outputs."""

    def __init__(self, model: BlipCaption) -> None:
        super().__init__()
        self.decoder = model.text_decoder

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        self_keys: Tensor,
        self_values: Tensor,
        image_keys: Tensor,
        image_values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (rows, vocab_size) and the caches with this token in them.

        Args:
            token_ids: (rows,), an image's rows adjacent.
            positions: (rows,) position of the token in its row, from 0.
            self_keys: (layers, rows, heads, max_length, head_dim), zeros at first.
            self_values: (layers, rows, heads, max_length, head_dim), zeros at first.
            image_keys: from `ImageEncoder`.
            image_values: from `ImageEncoder`.
        """
        cache = _FunctionalCache(self_keys, self_values)
        image_kv = [ImageKeyValues(*layer) for layer in zip(image_keys, image_values, strict=True)]
        hidden = self.decoder.bert(
            token_ids[:, None], mode="decoder", image_kv=image_kv, cache=cache, positions=positions[:, None]
        )
        return self.decoder.head(hidden[:, 0]), torch.stack(cache.keys), torch.stack(cache.values)


class _FunctionalCache:
    """A cache like `SelfAttentionCache` that returns new tensors instead of writing to its tensors."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys = list(keys)
        self.values = list(values)

    @property
    def max_length(self) -> int:
        return self.keys[0].shape[2]

    def write(self, layer: int, positions: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        slots = torch.arange(self.max_length, device=positions.device)
        is_written = (slots == positions)[:, None, :, None]  # (rows, 1, max_length, 1)
        self.keys[layer] = torch.where(is_written, keys, self.keys[layer])
        self.values[layer] = torch.where(is_written, values, self.values[layer])
        return self.keys[layer], self.values[layer]


def export_image_encoder(model: BlipCaption, onnx_file: str | Path | None = None) -> ExportedProgram:
    """Return the graph of `ImageEncoder`.

    Args:
        model: to export.
        onnx_file: also write the graph as ONNX to this path.

    Raises:
        ImportError: ONNX without `pip install "lavis-lite[onnx]"`.
    """
    size = model.config.image_size
    inputs = (torch.zeros(2, 3, size, size),)
    images = Dim("images", min=1, max=4096)
    names = (("image",), ENCODER_OUTPUTS)
    return _export(ImageEncoder(model), inputs, {"image": {0: images}}, names, onnx_file)


def export_decoding_step(
    model: BlipCaption,
    max_length: int = 30,
    rows_per_image: int = 1,
    onnx_file: str | Path | None = None,
) -> ExportedProgram:
    """Return the graph of `DecodingStep`.

    Args:
        model: to export.
        max_length: maximum tokens in the caches, prompt included.
        rows_per_image: beams.
        onnx_file: also write the graph as ONNX to this path.

    Raises:
        ImportError: ONNX without `pip install "lavis-lite[onnx]"`.
    """
    config = model.text_config
    heads = config.num_attention_heads
    head_dim = config.hidden_size // heads
    tokens = model.visual_encoder.pos_embed.shape[1]
    example_images = 2
    example_rows = example_images * rows_per_image
    cache = torch.zeros(config.num_hidden_layers, example_rows, heads, max_length, head_dim)
    image_side = torch.zeros(config.num_hidden_layers, example_images, heads, tokens, head_dim)
    indices = torch.zeros(example_rows, dtype=torch.long)
    inputs = (indices, indices.clone(), cache, cache.clone(), image_side, image_side.clone())
    images = Dim("images", min=1, max=4096)
    rows = images if rows_per_image == 1 else rows_per_image * images
    shapes = {name: {0: rows} for name in ("token_ids", "positions")}
    shapes |= {name: {1: rows} for name in ("self_keys", "self_values")}
    shapes |= {name: {1: images} for name in ("image_keys", "image_values")}
    return _export(DecodingStep(model), inputs, shapes, (STEP_INPUTS, STEP_OUTPUTS), onnx_file)


def _export(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    dynamic_shapes: dict[str, dict[int, Dim]],
    names: tuple[tuple[str, ...], tuple[str, ...]],
    onnx_file: str | Path | None,
) -> ExportedProgram:
    module.eval()
    device = next(module.parameters()).device
    inputs = tuple(tensor.to(device) for tensor in inputs)
    with torch.no_grad():
        program = torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes)
    if onnx_file is not None:
        try:
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ImportError('ONNX files need more packages: pip install "lavis-lite[onnx]"') from error
        Path(onnx_file).parent.mkdir(parents=True, exist_ok=True)
        torch.onnx.export(
            program,
            f=str(onnx_file),
            input_names=names[0],
            output_names=names[1],
            dynamo=True,
            verbose=False,
        )
    return program
