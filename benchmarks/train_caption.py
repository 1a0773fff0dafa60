"""A training step of the captioner with AdamW: ours, transformers', and ours with grouped captions.

    python benchmarks/train_caption.py --json train_caption.json

Random weights, equal on both sides; the loss of transformers' model, which it computes at every
position, against ours. With `--grouped 5` an image is encoded once for five of its captions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext

import torch
from peers import build_peer
from side_by_side import add_common_arguments, print_table, save, time_side_by_side
from torch import nn
from transformers import BlipForConditionalGeneration

from lavis_lite import load_model
from lavis_lite.common.texts import TokenizedTexts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--image-size", type=int, default=384)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=16, help="of each caption, prompt included")
    parser.add_argument("--grouped", type=int, default=5, help="captions of an image in one pass")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = load_model(
        "blip_caption",
        "base",
        load_finetuned=False,
        load_pretrained=False,
        tokenizer="shapes",
        med_config={"vocab_size": 30524, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        image_size=arguments.image_size,
    ).to(arguments.device)
    images = torch.randn(arguments.images, 3, arguments.image_size, arguments.image_size)
    images = images.to(arguments.device)

    def autocast() -> torch.autocast | nullcontext:
        dtype = getattr(torch, arguments.dtype)
        return torch.autocast(arguments.device, dtype) if dtype != torch.float32 else nullcontext()

    def step(module: nn.Module, loss_of: Callable[[], torch.Tensor]) -> Callable[[], float]:
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6)

        def way() -> float:
            with autocast():
                loss = loss_of()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss.item()

        return way

    def ours(captions: int) -> Callable[[], torch.Tensor]:
        ids = torch.randint(1000, 30000, (arguments.images * captions, arguments.tokens))
        mask = torch.ones_like(ids)
        texts = TokenizedTexts(["a"] * len(ids), ids, mask, (model.config.max_txt_len, "longest"))
        samples = {"image": images, "text_input": texts}
        return lambda: model(samples).loss

    ways = {}
    if arguments.peer == "transformers":
        peer = build_peer(BlipForConditionalGeneration, model).train().to(arguments.device)
        ids = torch.randint(1000, 30000, (arguments.images, arguments.tokens), device=arguments.device)
        mask = torch.ones_like(ids)
        theirs = {"pixel_values": images, "input_ids": ids, "attention_mask": mask, "labels": ids}
        ways["transformers"] = step(peer, lambda: peer(**theirs).loss)
    model.train()
    ways["lavis_lite"] = step(model, ours(1))
    grouped = f"lavis_lite, {arguments.grouped} captions an image"
    ways[grouped] = step(model, ours(arguments.grouped))
    title = (
        f"train on {arguments.images} images at {arguments.image_size}, captions of {arguments.tokens} "
        f"tokens, AdamW, {arguments.dtype}"
    )
    timings = time_side_by_side(ways, arguments.repeats)
    print_table(title, timings, against=next(iter(ways)))
    seconds = {timing.name: timing.median_seconds for timing in timings}
    gain = arguments.grouped * seconds[next(iter(ways))] / seconds[grouped]
    print(f"  captions a second, grouped, against {next(iter(ways))}: {gain:.2f}x")
    save(arguments.json, {title: timings})


if __name__ == "__main__":
    main()
