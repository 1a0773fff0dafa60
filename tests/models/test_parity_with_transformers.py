"""The captioner computes what transformers' BLIP computes from the same weights."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from transformers import BlipConfig, BlipForConditionalGeneration

from lavis_lite.models.blip_models.blip_caption import BlipCaption
from lavis_lite.models.weights.adapters.transformers import to_transformers

IMAGES = 50
VISION = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 8,
    "image_size": 32,
}
TEXT = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
MAX_LENGTH = 20


@pytest.fixture(scope="module")
def ours() -> BlipCaption:
    torch.manual_seed(0)
    model = BlipCaption.from_config(
        {
            "vit_type": {"embed_dim": 64, "depth": 2, "num_heads": 4, "patch_size": 8},
            "image_size": 32,
            "med_config": {**TEXT, "max_position_embeddings": 64},
            "tokenizer": "shapes",
            "prompt": "a picture of ",
        }
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:  # far from zero, so that captions of random weights differ and end
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture(scope="module")
def theirs(ours: BlipCaption) -> BlipForConditionalGeneration:
    tokenizer = ours.tokenizer
    text = {
        **TEXT,
        "vocab_size": ours.text_config.vocab_size,
        "encoder_hidden_size": 64,
        "max_position_embeddings": 64,
        "layer_norm_eps": 1e-12,
        "label_smoothing": 0.1,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**VISION, "intermediate_size": 256, "layer_norm_eps": 1e-6}
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    model.load_state_dict(to_transformers(ours.state_dict()))
    return model.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def captions() -> list[str]:
    endings = ("a red square", "two shapes and the larger one is a star", "a heart on a teal background")
    return [f"a picture of {endings[i % 3]}" for i in range(IMAGES)]


def test_logits_and_loss_agree(ours, theirs, images, captions):
    tokens = ours.tokenizer(captions, padding="longest", return_tensors="pt")
    input_ids = tokens.input_ids.clone()
    input_ids[:, 0] = ours.dec_token_id
    labels = input_ids.masked_fill(tokens.attention_mask == 0, -100)
    labels[:, : ours.prompt_length] = -100
    with torch.no_grad():
        reference = theirs(
            pixel_values=images, input_ids=input_ids, attention_mask=tokens.attention_mask, labels=labels
        )
        output = ours({"image": images, "text_input": captions})
        hidden = output.intermediate_output.decoder_output.hidden_states
        logits = ours.text_decoder.head(hidden)
    real = tokens.attention_mask.bool()
    assert torch.allclose(logits[real], reference.logits[real], atol=1e-4, rtol=0)
    assert abs(output.loss - reference.loss) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("num_beams", [1, 3, 5])
@pytest.mark.parametrize("prompted", [True, False])
def test_generated_tokens_are_the_same_under_every_rule(ours, theirs, images, num_beams, prompted):
    different_rows = set()
    prompt = ours.prompt if prompted else ""
    for penalty, ngram, length_penalty, min_length in product((1.0, 1.3), (0, 2), (1.0, 0.6), (0, 12)):
        rules = {
            "num_beams": num_beams,
            "repetition_penalty": penalty,
            "no_repeat_ngram_size": ngram,
            "length_penalty": length_penalty,
            "min_length": min_length,
            "max_length": MAX_LENGTH,
        }
        expected = _generate_theirs(ours, theirs, images, prompt, rules)
        found = ours.generate({"image": images}, prompt=prompt, use_nucleus_sampling=False, **rules)
        assert found == expected, rules
        different_rows.update(found)
    assert len(different_rows) > IMAGES  # the rules and the images do make a difference


def _generate_theirs(ours, theirs, images, prompt, rules):
    prompt_ids = ours.tokenizer([prompt] * IMAGES, return_tensors="pt").input_ids
    prompt_ids[:, 0] = ours.dec_token_id
    ids = theirs.generate(  # drops the last prompt token by itself, which is [SEP]
        pixel_values=images,
        input_ids=prompt_ids.clone(),
        attention_mask=torch.ones_like(prompt_ids),
        do_sample=False,
        **rules,
    )
    rows = [row[prompt_ids.shape[1] - 1 :].tolist() for row in ids]
    end = ours.tokenizer.sep_token_id
    rows = [row[: row.index(end)] if end in row else row for row in rows]
    return [ours.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]


def test_best_beams_are_returned_in_order(ours, theirs, images):
    rules = {"num_beams": 4, "max_length": MAX_LENGTH, "min_length": 0, "length_penalty": 0.8}
    found = ours.generate({"image": images}, num_captions=3, prompt="", **rules)
    expected = _generate_theirs(ours, theirs, images, "", {**rules, "num_return_sequences": 3})
    assert found == expected


@pytest.mark.parametrize("early_stopping", [True, "never"])
def test_every_way_of_stopping_is_the_same(ours, theirs, images, early_stopping):
    rules = {"num_beams": 3, "max_length": MAX_LENGTH, "min_length": 0, "length_penalty": 1.4}
    rules["early_stopping"] = early_stopping
    assert ours.generate({"image": images}, prompt="", **rules) == _generate_theirs(
        ours, theirs, images, "", rules
    )
