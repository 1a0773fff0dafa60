"""What the published weights said when their authors published them.

Run by ``pytest -m needs_weights`` where the network can be reached: it downloads several GB.
"""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from lavis_lite import load_model_and_preprocess
from lavis_lite.common.storage.cache import fetch

pytestmark = pytest.mark.needs_weights

SERVER = "https://storage.googleapis.com/sfr-vision-language-research"
MERLION = "https://raw.githubusercontent.com/salesforce/LAVIS/main/docs/_static/merlion.png"
BEACH = f"{SERVER}/BLIP/demo.jpg"
BASE_CAPFILT = f"{SERVER}/BLIP/models/model_base_capfilt_large.pth"
WOMAN_AND_DOG = "a picture of a woman with a dog sitting in a beach"


def picture(url: str) -> Image.Image:
    return Image.open(fetch(url)).convert("RGB")


@pytest.mark.parametrize(
    ("model_type", "caption"),
    [
        ("base_coco", "a large fountain spewing water into the air"),
        ("large_coco", "a large statue of a person spraying water from a fountain"),
    ],
)
def test_captions_of_the_merlion(model_type, caption):
    model, processors, _ = load_model_and_preprocess("blip_caption", model_type, is_eval=True)
    image = processors["eval"](picture(MERLION))[None]
    assert model.generate({"image": image}, num_beams=3, max_length=30, min_length=10) == [caption]


def test_the_loss_of_a_caption():
    model, processors, _ = load_model_and_preprocess("blip_caption", "base_coco", is_eval=True)
    samples = {
        "image": processors["eval"](picture(MERLION))[None],
        # As its authors gave it: whole, so that the prompt's four places hide real words.
        "text_input": ["a large statue of a person spraying water from a fountain"],
    }
    assert model(samples).loss.item() == pytest.approx(2.7152, abs=1e-2)


def test_the_token_ids_of_a_prompted_caption():
    model, processors, _ = load_model_and_preprocess(
        "blip_caption", "base", is_eval=True, checkpoint=BASE_CAPFILT
    )
    image = processors["eval"](picture(BEACH))[None]
    caption = model.generate({"image": image}, num_beams=1, max_length=20, min_length=0)
    token_ids = model.tokenizer("a picture of " + caption[0]).input_ids
    assert token_ids[1:] == [1037, 3861, 1997, 1037, 2450, 3564, 2006, 1996, 3509, 2007, 2014, 3899, 102]


def test_the_city_of_the_merlion():
    model, vis_processors, text_processors = load_model_and_preprocess("blip_vqa", "vqav2", is_eval=True)
    samples = {
        "image": vis_processors["eval"](picture(MERLION))[None],
        "text_input": [text_processors["eval"]("Which city is this photo taken?")],
    }
    assert model.predict_answers(samples, inference_method="generate") == ["singapore"]
    cities = ["Singapore", "London", "Palo Alto", "Tokyo"]
    assert model.predict_answers(samples, answer_list=cities) == ["Singapore"]


@pytest.mark.parametrize(
    ("model_type", "text", "match", "similarity"),
    [
        ("base", "merlion in Singapore", 0.98613, 0.4633),
        ("base", "a random irrelevant caption", 0.05704, 0.23282),
        ("large", "merlion in Singapore", 0.99466, 0.4474),
        ("large", "a random irrelevant caption", 0.04744, 0.12821),
    ],
)
def test_how_well_a_text_matches_the_merlion(model_type, text, match, similarity):
    model, vis_processors, text_processors = load_model_and_preprocess(
        "blip_image_text_matching", model_type, is_eval=True
    )
    samples = {
        "image": vis_processors["eval"](picture(MERLION))[None],
        "text_input": [text_processors["eval"](text)],
    }
    with torch.inference_mode():
        assert model(samples, match_head="itm").softmax(1)[0, 1].item() == pytest.approx(match, abs=1e-3)
        assert model(samples, match_head="itc").item() == pytest.approx(similarity, abs=1e-3)


def test_the_similarity_that_the_conversion_to_transformers_asserts():
    model, processors, _ = load_model_and_preprocess("blip_image_text_matching", "base", is_eval=True)
    samples = {"image": processors["eval"](picture(BEACH))[None], "text_input": [WOMAN_AND_DOG]}
    with torch.inference_mode():
        assert model(samples, match_head="itc").item() == pytest.approx(0.21106875, abs=1e-3)


def test_the_features_of_the_merlion_and_its_caption():
    model, vis_processors, text_processors = load_model_and_preprocess(
        "blip_feature_extractor", "base", is_eval=True
    )
    samples = {
        "image": vis_processors["eval"](picture(MERLION))[None],
        "text_input": [text_processors["eval"]("a large fountain spewing water into the air")],
    }
    with torch.inference_mode():
        image = model.extract_features(samples, mode="image").image_embeds_proj[:, 0]
        text = model.extract_features(samples, mode="text").text_embeds_proj[:, 0]
    assert (image @ text.T).item() == pytest.approx(0.2622, abs=1e-3)
