"""A pretraining step (ITC + ITM + LM): ours, ours projecting images for each pass, and the ViT alone.

    python benchmarks/pretrain_step.py --json pretrain_step.json

There is no public peer to install. "images projected for each pass" is what follows from the published
recipe: the matching pairs, the pairs with a wrong image, those with a wrong text, and the captions each
compute the keys and values of their images anew. The ViT alone runs forward and backward, and once more
forward as the momentum copy does; below that no step can be.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from side_by_side import add_common_arguments, print_table, save, time_side_by_side
from torch import Tensor, nn

from lavis_lite import load_model
from lavis_lite.common.texts import TokenizedTexts
from lavis_lite.models.blip_models.blip_pretrain import BlipPretrain


class ProjectsEachTime(nn.Module):
    """The same losses by the same layers, with nothing shared between the passes."""

    def __init__(self, model: BlipPretrain) -> None:
        super().__init__()
        self.model = model

    def forward(self, samples: Mapping[str, Any]) -> Tensor:
        model = self.model
        pairs = model.read_pairs(samples)
        alignment = model.align(samples, pairs)
        project = model.text_encoder.project_image
        wrong = torch.arange(len(pairs.input_ids)).roll(1)
        matched = model.match_states(pairs.input_ids, pairs.attention_mask, project(pairs.image_embeds))
        images = torch.cat((pairs.image_embeds[wrong], pairs.image_embeds))
        ids = torch.cat((pairs.input_ids, pairs.input_ids[wrong]))
        mask = torch.cat((pairs.attention_mask, pairs.attention_mask[wrong]))
        unmatched = model.match_states(ids, mask, project(images))
        logits = model.itm_head(torch.cat((matched[:, 0], unmatched[:, 0])))
        labels = torch.zeros(len(logits), dtype=torch.long)
        labels[: len(matched)] = 1
        loss_itm = nn.functional.cross_entropy(logits, labels)
        hidden = model.text_decoder(pairs.input_ids, pairs.attention_mask, project(pairs.image_embeds))
        words = model.text_decoder.head(hidden[:, :-1]).flatten(0, 1)  # at every position, as published
        loss_lm = nn.functional.cross_entropy(words, pairs.input_ids[:, 1:].flatten(), label_smoothing=0.1)
        return alignment.loss + loss_itm + loss_lm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=16, help="of each text")
    parser.add_argument("--padded-to", type=int, default=30, help="tokens, where nothing is shared")
    parser.add_argument("--queue-size", type=int, default=57600)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = load_model(
        "blip_pretrain",
        "base",
        load_finetuned=False,
        load_pretrained=False,
        tokenizer="shapes",
        med_config={"vocab_size": 30524, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        image_size=arguments.image_size,
        queue_size=arguments.queue_size,
    ).train()
    model.to(arguments.device)
    images = torch.randn(arguments.images, 3, arguments.image_size, arguments.image_size)
    images = images.to(arguments.device)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)

    def samples(length: int) -> dict[str, Any]:
        ids = torch.zeros(arguments.images, length, dtype=torch.long)
        ids[:, : arguments.tokens] = torch.randint(1000, 30000, (arguments.images, arguments.tokens))
        made_for = (model.config.max_txt_len, "longest")
        texts = TokenizedTexts(["a"] * len(ids), ids, (ids > 0).long(), made_for)
        return {"image": images, "text_input": texts, "epoch": 0, "iters": 0, "num_iters_per_epoch": 1}

    def step(loss_of: Callable[[], Tensor], follow: bool) -> Callable[[], float]:
        dtype = getattr(torch, arguments.dtype)
        mixed = torch.autocast(arguments.device, dtype) if dtype != torch.float32 else nullcontext()

        def way() -> float:
            with mixed:
                loss = loss_of()
            loss.backward()
            if follow:
                optimizer.step()
                model.after_step()
            optimizer.zero_grad(set_to_none=True)
            return loss.item()

        return way

    def vision_alone() -> Tensor:
        with torch.no_grad():
            model.visual_encoder_m(images)
        return model.visual_encoder(images).mean()

    short, padded = samples(arguments.tokens), samples(arguments.padded_to)
    each_time = ProjectsEachTime(model)
    ways = {
        "images projected for each pass": step(lambda: each_time(padded), follow=True),
        "lavis_lite": step(lambda: model(short).loss, follow=True),
        "vision transformer alone": step(vision_alone, follow=False),
    }
    title = (
        f"pretrain on {arguments.images} pairs at {arguments.image_size}, {arguments.tokens} tokens, "
        f"queue {arguments.queue_size}, {arguments.dtype}"
    )
    timings = time_side_by_side(ways, arguments.repeats)
    print_table(title, timings, against=next(iter(ways)))
    save(arguments.json, {title: timings})


if __name__ == "__main__":
    main()
