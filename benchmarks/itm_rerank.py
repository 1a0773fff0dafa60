"""Match scores of one image with many texts: ours, transformers', and the text layers alone.

    python benchmarks/itm_rerank.py --texts 64 --tokens 12 --json itm.json

The image's hidden states are given; transformers' text encoder reads one copy of them a text. With
`--padded-to` the peer's texts are padded so far, as its users do; ours only as far as needed.
"""

from __future__ import annotations

import argparse

import torch
from peers import build_peer
from side_by_side import add_common_arguments, print_table, save, time_side_by_side
from transformers import BlipForImageTextRetrieval

from lavis_lite import load_model

MANY_TOKENS = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--image-size", type=int, default=384)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=35, help="of each text")
    parser.add_argument("--padded-to", type=int, help="tokens that the peer's texts are padded to")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    dtype = getattr(torch, arguments.dtype)
    model = load_model(
        "blip_image_text_matching",
        "base",
        is_eval=True,
        load_finetuned=False,
        load_pretrained=False,
        tokenizer="shapes",
        med_config={"vocab_size": 30524},
        image_size=arguments.image_size,
        itm_first_token="cls",
    )
    peer = build_peer(BlipForImageTextRetrieval, model, image_text_hidden_size=256)
    peer.to(arguments.device, dtype)
    model.to(arguments.device, dtype)
    tokens = (arguments.image_size // 16) ** 2 + 1
    image_embeds = torch.randn(1, tokens, 768, device=arguments.device).to(dtype)
    input_ids = torch.randint(1000, 30000, (arguments.texts, arguments.tokens), device=arguments.device)
    attention_mask = torch.ones_like(input_ids)
    padding = (0, max(0, (arguments.padded_to or 0) - arguments.tokens))
    peer_ids = torch.nn.functional.pad(input_ids, padding)
    peer_mask = torch.nn.functional.pad(attention_mask, padding)

    @torch.inference_mode()
    def theirs() -> torch.Tensor:
        states = peer.text_encoder(
            input_ids=peer_ids,
            attention_mask=peer_mask,
            encoder_hidden_states=image_embeds.expand(arguments.texts, -1, -1),
        ).last_hidden_state
        return peer.itm_head(states[:, 0])

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        return model.match_one_image(image_embeds, input_ids, attention_mask, MANY_TOKENS)

    @torch.inference_mode()
    def text_layers_alone() -> torch.Tensor:
        return model.text_encoder(input_ids, attention_mask, mode="text")

    difference = (theirs().float() - ours().float()).abs().max().item()
    print(f"largest difference of a logit: {difference:.2g}")
    ways = {"transformers": theirs} if arguments.peer == "transformers" else {}
    ways |= {"lavis_lite": ours, "text layers without the image": text_layers_alone}
    title = (
        f"match one image at {arguments.image_size} with {arguments.texts} texts of {arguments.tokens} "
        f"tokens (peer padded to {peer_ids.shape[1]}), {arguments.dtype}"
    )
    timings = time_side_by_side(ways, arguments.repeats)
    print_table(title, timings, against=next(iter(ways)))
    save(arguments.json, {title: timings})


if __name__ == "__main__":
    main()
