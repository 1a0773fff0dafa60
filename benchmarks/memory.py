"""How much memory each recipe needs on a GPU, worked out without one.

    python benchmarks/memory.py

Weights, gradients and AdamW's two moments are counted: 4 bytes each. What a forward pass keeps for
the backward pass is measured in bf16 autocast, on 1 and on 2 images, and carried on to the recipe's
batch. Left out: what kernels need while they work, the data in flight, and the allocator's gaps.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite.common.config.layering import load_config
from lavis_lite.common.registry import registry
from lavis_lite.common.texts import TokenizedTexts
from lavis_lite.models.blip_models.blip import CONFIGS

ROOT = Path(__file__).resolve().parents[1]
RECIPES = (
    "pretrain_14m",
    "pretrain_large",
    "caption_coco_ft",
    "caption_coco_large_ft",
    "retrieval_coco_ft",
    "retrieval_coco_large_ft",
    "vqav2_ft",
    "nlvr_ft",
)
GIB = 2**30
TOKENS = 16


def build(name: str) -> tuple[nn.Module, int]:
    """Return a recipe's model with random weights, and its batch size."""
    config = load_config(ROOT / f"projects/blip/train/{name}.yaml", [])
    settings = {k: v for k, v in config.sections["model"].items() if k not in ("arch", "model_type")}
    layers = settings.get("med_config") or "med_config"
    if isinstance(layers, str):
        layers = json.loads((CONFIGS / f"{layers}.json").read_text())
    # the small vocabulary at hand, but as many rows as with BERT's
    settings |= {"tokenizer": "shapes", "med_config": {**layers, "vocab_size": 30524}}
    settings |= {"load_finetuned": False, "load_pretrained": False}
    model = registry.get_model_class(config.sections["model"]["arch"]).from_config(settings)
    return model.train(), config.run.batch_size_train


def batch(model: nn.Module, images: int) -> dict[str, Any]:
    """Return random training samples."""
    size = model.config.image_size
    ids = torch.randint(10, 100, (images, TOKENS))
    length = getattr(model.config, "max_txt_len", 30)
    texts = TokenizedTexts(["a"] * images, ids, torch.ones_like(ids), (length, "longest"))
    pixels = torch.randn(images, 3, size, size)
    samples: dict[str, Any] = {"image": pixels, "image0": pixels, "image1": pixels}
    samples |= {"text_input": texts, "image_id": torch.arange(images), "label": torch.ones(images).long()}
    samples |= {"answer": ["a red circle"] * images, "weight": torch.ones(images), "n_answers": [1] * images}
    return samples | {"epoch": 0, "iters": 0, "num_iters_per_epoch": 1}


def kept_for_backward(model: nn.Module, images: int) -> int:
    """Return the bytes that a forward pass keeps, weights aside."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        output = model(batch(model, images))
    recomputed = getattr(getattr(model, "visual_encoder", None), "checkpointed_blocks", 0)
    vision = model.config.vision_sizes
    tokens = (model.config.image_size // vision.patch_size) ** 2 + 1
    inputs = recomputed * images * tokens * vision.embed_dim * 4
    del output
    return sum(kept.values()) + inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    print("| recipe | weights trained, with copies | states | activations an image | batch | in all |")
    print("|---|---|---|---|---|---|")
    for name in arguments.recipes:
        model, batch_size = build(name)
        everything = sum(p.numel() for p in model.parameters())
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        states = 4 * (everything + 3 * trained)
        one, two = kept_for_backward(model, 1), kept_for_backward(model, 2)
        each = two - one
        total = states + one + each * (batch_size - 1)
        print(
            f"| `{name}` | {trained / 1e6:.0f} M, {everything / 1e6:.0f} M | {states / GIB:.1f} GiB "
            f"| {each / GIB:.2f} GiB | {batch_size} | {total / GIB:.0f} GiB |",
            flush=True,
        )
        del model


if __name__ == "__main__":
    main()
