"""Beam-search captions: ours, transformers', and the vision transformer alone.

    python benchmarks/generate.py --dtype bfloat16 --json generate.json

Random weights, moved over, and a least length equal to the greatest, so that both sides make the
same number of steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from peers import build_peer
from side_by_side import add_common_arguments, print_table, save, time_side_by_side
from transformers import BlipForConditionalGeneration

from lavis_lite import load_model
from lavis_lite.models.blip_models.blip_caption import BlipCaption

PROMPT_TOKENS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--vit", choices=("base", "large"), default="base")
    parser.add_argument("--image-size", type=int, default=384)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--length", type=int, default=20, help="tokens, prompt included")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    dtype = getattr(torch, arguments.dtype)
    model = load_model(
        "blip_caption",
        arguments.vit,
        is_eval=True,
        load_finetuned=False,
        load_pretrained=False,
        tokenizer="shapes",  # a small vocabulary, but the network has as many rows as with BERT's
        med_config={"vocab_size": 30524},
        image_size=arguments.image_size,
    )
    ways = {}
    if arguments.peer == "transformers":
        ways["transformers"] = transformers_way(model, arguments, dtype)
    ways["lavis_lite"] = our_way(model, arguments, dtype)
    images = random_images(arguments, dtype)
    ways["vision transformer alone"] = torch.inference_mode()(lambda: model.visual_encoder(images))

    title = (
        f"caption {arguments.images} images, ViT-{arguments.vit} at {arguments.image_size}, "
        f"beam {arguments.beams}, {arguments.length} tokens, {arguments.dtype}"
    )
    timings = time_side_by_side(ways, arguments.repeats)
    print_table(title, timings, against=next(iter(ways)))
    save(arguments.json, {title: timings})


def random_images(arguments: argparse.Namespace, dtype: torch.dtype) -> torch.Tensor:
    shape = (arguments.images, 3, arguments.image_size, arguments.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(arguments.device, dtype)


def our_way(model: BlipCaption, arguments: argparse.Namespace, dtype: torch.dtype) -> Callable[[], list[str]]:
    model.to(arguments.device, dtype)
    model.prompt = ""
    samples = {"image": random_images(arguments, dtype)}
    prompt = " ".join(["a"] * (PROMPT_TOKENS - 1))
    settings = {"max_length": arguments.length, "min_length": arguments.length}
    return lambda: model.generate(samples, prompt=prompt, num_beams=arguments.beams, **settings)


def transformers_way(
    model: BlipCaption, arguments: argparse.Namespace, dtype: torch.dtype
) -> Callable[[], torch.Tensor]:
    peer = build_peer(BlipForConditionalGeneration, model)
    peer.to(arguments.device, dtype)
    images = random_images(arguments, dtype)
    # It drops the last token of a prompt, where [SEP] stands.
    prompt = torch.full((arguments.images, PROMPT_TOKENS + 1), 1037, device=arguments.device)

    @torch.inference_mode()
    def way() -> torch.Tensor:
        output = peer.generate(
            pixel_values=images,
            input_ids=prompt.clone(),
            num_beams=arguments.beams,
            max_length=arguments.length,
            min_length=arguments.length,
        )
        assert output.shape[1] == arguments.length, output.shape
        return output

    return way


if __name__ == "__main__":
    main()
