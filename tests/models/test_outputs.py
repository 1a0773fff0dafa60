"""Outputs of the models: LAVIS's attributes, and numbers that are reported but not minimized."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lavis_lite import load_model

TEXTS = ["a picture of a red circle", "a picture of a star"]
PLACE = {"epoch": 1, "iters": 4, "num_iters_per_epoch": 10}


def forward(name: str, **samples: object):
    torch.manual_seed(0)
    model = load_model(
        name, "tiny", **({"queue_size": 64} if name in ("blip_pretrain", "blip_retrieval") else {})
    )
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return model, model({"image": image, "text_input": TEXTS, **samples})


@pytest.mark.parametrize("name", ["blip_retrieval", "blip_pretrain", "blip_vqa"])
def test_encoder_output_has_its_last_hidden_state(name):
    _, output = forward(name, image_id=[1, 2], answer=["red", "blue"])
    encoder_output = output.intermediate_output.encoder_output
    assert type(encoder_output.last_hidden_state) is Tensor
    assert encoder_output.last_hidden_state.shape == (2, encoder_output.shape[1], 128)
    assert torch.equal(encoder_output.last_hidden_state, encoder_output)
    assert type(encoder_output[:, 0]) is Tensor  # as a tensor, it is used like any other
    encoder_output.last_hidden_state.sum().backward()


@pytest.mark.parametrize("name", ["blip_caption", "blip_pretrain", "blip_vqa"])
def test_logits_are_those_of_all_positions_for_who_asks(name):
    model, _ = forward(name, answer=["red", "blue"])
    projected = []
    model.text_decoder.head.register_forward_hook(lambda head, inputs, logits: projected.append(logits.shape))
    image = torch.zeros(2, 3, 64, 64)
    output = model({"image": image, "text_input": TEXTS, "answer": ["red", "dark blue"]})
    inner = output.intermediate_output
    labels = inner.decoder_labels
    assert projected == [inner.decoder_output.label_logits.shape]
    logits = inner.decoder_output.logits
    assert logits.shape == (*labels.shape, len(model.tokenizer))
    assert inner.decoder_output["logits"] is logits
    labeled = logits[:, :-1][labels[:, 1:] != -100]
    torch.testing.assert_close(labeled, inner.decoder_output.label_logits, rtol=1e-4, atol=1e-5)


def test_alignment_reports_temperature_alpha_and_queue_fill():
    for name in ("blip_pretrain", "blip_retrieval"):
        model, output = forward(name, image_id=[1, 2], **PLACE)
        assert not any(value.requires_grad for value in output.report.values())
        ramp = 1.4 / model.config.alpha_ramp_epochs
        assert {key: round(value.item(), 6) for key, value in output.report.items()} == {
            "temperature": 0.07,
            "alpha": round(0.4 * min(1.0, ramp), 6),
            "queue_fill": 15 * 2 / 64 if 15 * 2 < 64 else 1.0,
        }
        assert output.loss_weight == 2
        output.loss.backward()
        assert output.report["temperature"].item() == pytest.approx(0.07)


def test_without_a_place_in_training_no_queue_fill_is_reported():
    _, output = forward("blip_pretrain")
    assert sorted(output.report) == ["alpha", "temperature"]


def test_a_classifier_returns_its_logits_with_the_loss():
    model = load_model("blip_classification", "tiny", num_classes=3)
    output = model({"image": torch.zeros(2, 3, 64, 64), "text_input": TEXTS, "label": [0, 2]})
    assert output.logits.shape == (2, 3) and output.loss_weight == 2
