"""Texts tokenized in the workers train as texts do, and are not tokenized again."""

from __future__ import annotations

import pickle

import pytest
import torch

from lavis_lite import load_model
from lavis_lite.common.texts import TokenizedTexts
from lavis_lite.models.blip_models import blip as blip_module

TEXTS = ["a picture of a red circle", "a picture of two stars and a large green square"]
BATCHES = {
    "blip_caption": {"text_input": TEXTS},
    "blip_retrieval": {"text_input": TEXTS, "image_id": [0, 1]},
    "blip_pretrain": {"text_input": TEXTS},
    "blip_classification": {"text_input": TEXTS, "label": torch.tensor([0, 1])},
    "blip_vqa": {
        "text_input": ["what colour is it", "how many"],
        "answer": ["red", "two", "three"],
        "n_answers": torch.tensor([1, 2]),
        "weight": torch.tensor([1.0, 0.5, 0.5]),
    },
}


def batch(name: str) -> dict:
    return {"image": torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), **BATCHES[name]}


@pytest.mark.parametrize("name", BATCHES)
def test_the_loss_is_the_same_and_nothing_is_tokenized_twice(name, monkeypatch):
    torch.manual_seed(0)
    model = load_model(name, "tiny").eval()
    plain = batch(name)
    torch.manual_seed(1)
    expected = model(plain)["loss"]
    tokenized = pickle.loads(pickle.dumps(model.text_collator()(plain)))  # as it comes from a worker
    assert (
        isinstance(tokenized["text_input"], TokenizedTexts) and tokenized["text_input"] == plain["text_input"]
    )
    torch.manual_seed(0)
    again = load_model(name, "tiny").eval()

    def refuse(*arguments):
        raise AssertionError("tokenized again")

    monkeypatch.setattr(blip_module.TokenizeTexts, "__call__", refuse)
    torch.manual_seed(1)
    torch.testing.assert_close(again(tokenized)["loss"], expected)


def test_tokens_made_for_another_length_are_made_anew():
    model = load_model("blip_caption", "tiny", max_txt_len=8).eval()
    other = load_model("blip_caption", "tiny", max_txt_len=5)
    tokenized = other.text_collator()(batch("blip_caption"))
    input_ids, _ = model.tokenize(tokenized["text_input"])
    assert input_ids.shape[1] == 8


def test_the_first_token_of_a_batch_is_not_changed_for_who_reads_it_next():
    model = load_model("blip_caption", "tiny")
    texts = model.text_collator()(batch("blip_caption"))["text_input"]
    before = texts.input_ids.clone()
    model.tokenize(texts, model.dec_token_id)
    assert torch.equal(texts.input_ids, before)
