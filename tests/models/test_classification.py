"""A classifier of texts with images, with and without a momentum model's opinion."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lavis_lite import load_model
from lavis_lite.common.config.schema import ConfigError


def build(**settings: object):
    torch.manual_seed(0)
    return load_model("blip_classification", "tiny", **settings).train()


@pytest.fixture
def samples():
    image = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    texts = ["a red circle", "a star is on the left", "there are two hearts"]
    return {"image": image, "text_input": texts, "label": torch.tensor([0, 1, 2])}


def test_without_distillation_the_loss_is_plain_cross_entropy(samples):
    model = build(use_distill=False)
    found = model.predict(samples)
    expected = F.cross_entropy(found["predictions"], samples["label"])
    assert model(samples)["loss"].item() == pytest.approx(expected.item(), abs=1e-6)
    assert not [key for key in model.state_dict() if "_m." in key]
    model.after_step()


def test_distillation_mixes_the_momentum_models_opinion_into_the_targets(samples):
    model = build()
    with torch.no_grad():
        for parameter in model.cls_head_m.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    place = {"epoch": 0, "iters": 5, "num_iters_per_epoch": 10}
    log_probabilities = model.classify(samples).log_softmax(1)
    opinion = model.classify(samples, suffix="_m").softmax(1)
    targets = 0.8 * F.one_hot(samples["label"], 3) + 0.2 * opinion
    expected = -(log_probabilities * targets).sum(1).mean()
    assert model(samples | place)["loss"].item() == pytest.approx(expected.item(), abs=1e-5)


def test_gradients_reach_the_model_and_not_its_momentum_copies(samples):
    model = build()
    model(samples)["loss"].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == ("_m." in name), name


def test_momentum_copies_follow_a_step(samples):
    model = build()
    before = model.cls_head_m[0].weight.clone()
    with torch.no_grad():
        model.cls_head[0].weight.add_(1.0)
    model.after_step()
    torch.testing.assert_close(model.cls_head_m[0].weight, before + 0.005)


def test_a_captioners_decoder_starts_the_encoder():
    captioner = load_model("blip_caption", "tiny").state_dict()
    model = build()
    model.load_weights(captioner, source="a captioner")
    key = "encoder.layer.1.crossattention.self.key.weight"
    assert torch.equal(model.state_dict()[f"text_encoder.{key}"], captioner[f"text_decoder.bert.{key}"])
    assert torch.equal(model.state_dict()[f"text_encoder_m.{key}"], captioner[f"text_decoder.bert.{key}"])


def test_the_number_of_classes_must_be_given():
    with pytest.raises(ConfigError, match="num_classes"):
        load_model("blip_classification", "base", tokenizer="shapes")
