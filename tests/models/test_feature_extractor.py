"""Features by mode: which are there, their shapes, what they agree with."""

from __future__ import annotations

import pytest
import torch

from lavis_lite import load_model

TEXTS = ["a red circle", "a blue heart on a gray background"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return load_model("blip_feature_extractor", "tiny", is_eval=True)


@pytest.fixture(scope="module")
def samples():
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return {"image": image, "text_input": TEXTS}


def test_features_of_images(model, samples):
    features = model.extract_features(samples, mode="image")
    assert features.image_embeds.shape == (2, 17, 128)
    assert features.image_embeds_proj.shape == (2, 17, 64)
    torch.testing.assert_close(features.image_embeds_proj.norm(dim=-1), torch.ones(2, 17))
    torch.testing.assert_close(features.image_embeds_proj[:, 0], model.embed_images(samples["image"]))
    assert features.text_embeds is None


def test_features_of_texts(model, samples):
    features = model.extract_features(samples, mode="text")
    length = len(model.tokenizer(TEXTS[1]).input_ids)
    assert features.text_embeds.shape == (2, length, 128)
    assert features.text_embeds_proj.shape == (2, length, 64)
    torch.testing.assert_close(features.text_embeds_proj[:, 0], model.embed_texts(TEXTS))


def test_features_of_both_together_depend_on_both(model, samples):
    together = model.extract_features(samples).multimodal_embeds
    assert together.shape[0] == 2
    other_image = samples | {"image": samples["image"].flip(0)}
    assert not torch.allclose(together, model.extract_features(other_image).multimodal_embeds)
    other_text = samples | {"text_input": ["a small star", TEXTS[1]]}
    found = model.extract_features(other_text).multimodal_embeds
    torch.testing.assert_close(found[1], together[1])
    assert not torch.allclose(found[0], together[0])


def test_long_texts_are_cut(model, samples):
    long = samples | {"text_input": ["a red circle " * 100] * 2}
    assert model.extract_features(long, mode="text").text_embeds.shape[1] == model.config.max_txt_len


@pytest.mark.parametrize(
    ("changes", "mode", "message"),
    [
        ({}, "images", "Did you mean image"),
        ({"image": None}, "multimodal", r"needs samples\['image'\]"),
        ({"text_input": None}, "text", r"needs samples\['text_input'\]"),
    ],
)
def test_what_is_missing_is_named(model, samples, changes, mode, message):
    with pytest.raises(ValueError, match=message):
        model.extract_features(samples | changes, mode=mode)
