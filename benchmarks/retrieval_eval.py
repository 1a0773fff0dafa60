"""Evaluating retrieval, from pixels to scores: ours, and transformers' model pair by pair.

    python benchmarks/retrieval_eval.py --json retrieval_eval.json

Both encode each image once and re-rank the same number of candidates of each image and each text; the
peer reads its image's hidden states for every pair and its texts padded to 35 tokens, as its users do.
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import numpy as np
import torch
from peers import build_peer
from side_by_side import add_common_arguments, print_table, save, time_side_by_side
from transformers import BlipForImageTextRetrieval

from lavis_lite import load_model

PADDED_TO = 35
WORDS = ("a", "red", "small", "circle", "star", "on", "blue", "background", "heart", "large")


class Split(list):
    """The batches of a split, with what they are of."""

    def __init__(self, images: torch.Tensor, texts: list[str], batch_size: int) -> None:
        numbers = torch.arange(len(images)).split(batch_size)
        super().__init__({"image": images[own], "index": own} for own in numbers)
        self.dataset = SimpleNamespace(text=texts, image=[str(number) for number in range(len(images))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--image-size", type=int, default=384)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--k-test", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    dtype = getattr(torch, arguments.dtype)
    model = load_model(
        "blip_retrieval",
        "coco",
        is_eval=True,
        load_finetuned=False,
        load_pretrained=False,
        tokenizer="shapes",
        med_config={"vocab_size": 30524},
        image_size=arguments.image_size,
        queue_size=64,
    ).to(arguments.device, dtype)
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, 10)) for _ in range(5 * arguments.images)]
    shape = (arguments.images, 3, arguments.image_size, arguments.image_size)
    split = Split(torch.randn(shape).to(arguments.device, dtype), texts, batch_size=4)
    settings = SimpleNamespace(k_test=arguments.k_test)

    @torch.inference_mode()
    def ours() -> object:
        return model.compute_sim_matrix(split, settings)

    ways = {}
    if arguments.peer == "transformers":
        weights = {key: value for key, value in model.state_dict().items() if "_m." not in key}
        ways["transformers, pair by pair"] = pair_by_pair(model, weights, split, texts, arguments, dtype)
    ways["lavis_lite"] = ours
    pairs = 6 * arguments.images * arguments.k_test
    title = (
        f"retrieval of {arguments.images} images at {arguments.image_size} and {len(texts)} texts, at most "
        f"{pairs} pairs re-ranked, {arguments.dtype}"
    )
    timings = time_side_by_side(ways, arguments.repeats)
    print_table(title, timings, against=next(iter(ways)))
    save(arguments.json, {title: timings})


def pair_by_pair(model, weights, split, texts, arguments, dtype):
    peer = build_peer(BlipForImageTextRetrieval, matching_part(model, weights), image_text_hidden_size=256)
    peer.to(arguments.device, dtype)
    tokens = model.tokenizer(
        texts, padding="max_length", max_length=PADDED_TO, truncation=True, return_tensors="pt"
    ).to(arguments.device)

    @torch.inference_mode()
    def way() -> None:
        states = torch.cat([peer.vision_model(batch["image"]).last_hidden_state for batch in split])
        images = torch.nn.functional.normalize(peer.vision_proj(states[:, 0]), dim=-1)
        encoded = peer.text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        similarity = images @ torch.nn.functional.normalize(peer.text_proj(encoded[:, 0]), dim=-1).T
        of_images = similarity.topk(arguments.k_test, dim=1).indices
        of_texts = similarity.topk(arguments.k_test, dim=0).indices.T
        for image, best in enumerate(of_images):
            match(states[image].expand(len(best), -1, -1), best)
        for text, best in enumerate(of_texts):
            match(states[best], torch.full_like(best, text))

    def match(states: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        output = peer.text_encoder(
            tokens.input_ids[chosen], tokens.attention_mask[chosen], encoder_hidden_states=states
        )
        return peer.itm_head(output.last_hidden_state[:, 0])

    return way


def matching_part(model, weights):
    """Return the model without momentum copies and queues, which the peer has not."""
    part = load_model(
        "blip_image_text_matching",
        "base",
        is_eval=True,
        load_finetuned=False,
        load_pretrained=False,
        tokenizer="shapes",
        med_config={"vocab_size": 30524},
        image_size=model.config.image_size,
    )
    own = part.state_dict()
    part.load_state_dict({key: weights[key] for key in own})
    return part


if __name__ == "__main__":
    main()
