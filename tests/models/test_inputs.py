"""What a model accepts in Python: images and texts in the forms that people have; others are refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lavis_lite import load_model, load_model_and_preprocess
from lavis_lite.models.blip_models.inputs import InputError

PICTURE = Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 40).convert("RGB")
GREEDY = {"num_beams": 1, "max_length": 8, "min_length": 1}


def pixels(count: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def captioner():
    return built("blip_caption")


@pytest.mark.parametrize("images", [PICTURE, [PICTURE], (PICTURE,)], ids=["one", "list", "tuple"])
def test_pil_images_are_processed_as_for_evaluation(captioner, images):
    processor = load_model_and_preprocess("blip_caption", "tiny")[1]["eval"]
    processed = processor(PICTURE).unsqueeze(0)
    assert torch.equal(captioner.check_image(images), processed)
    assert captioner.generate({"image": images}, **GREEDY) == captioner.generate(
        {"image": processed}, **GREEDY
    )


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_takes_what_the_processor_makes(precision):
    model = load_model("blip_caption", "tiny", is_eval=True).to(precision)
    assert model.generate({"image": pixels()}, **GREEDY) == model.generate(
        {"image": pixels().to(precision)}, **GREEDY
    )


def test_images_in_double_precision_are_taken(captioner):
    images = {"image": pixels().double()}
    assert captioner.generate(images, **GREEDY) == captioner.generate({"image": pixels()}, **GREEDY)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (pixels()[0], r"shape \(3, 64, 64\); call image\.unsqueeze\(0\)"),
        (pixels(size=96), "takes 64 x 64 pixels but the images have 96 x 96"),
        (pixels()[:, :1], "with 1 channels in place of 3"),
        (torch.cat([pixels(), pixels()[:, :1]], 1), "with 4 channels in place of 3"),
        (pixels().permute(0, 2, 3, 1), "channels must come before height and width"),
        (pixels(0), "the batch holds no image"),
        (pixels().abs().to(torch.uint8), r"torch\.uint8, not normalized .*vis_processors"),
        (pixels().abs() * 100, "the pixels reach from 0.* to .*: they are not normalized"),
        (pixels().index_fill(0, torch.tensor([1]), float("nan")), "image 1 of the batch holds NaN"),
        (pixels() * float("inf"), "image 0 of the batch holds NaN or infinite"),
        (np.zeros((1, 3, 64, 64), np.float32), r"a ndarray, not a tensor; use vis_processors"),
        ([PICTURE, np.zeros((64, 64, 3))], "image 1 is a ndarray, not a PIL image"),
        ([], "the list of images is empty"),
        ("a.jpg", "a str, not a tensor"),
        (None, r"needs samples\['image'\]"),
    ],
)  # fmt: skip
def test_other_images_are_refused_in_words(captioner, images, message):
    with pytest.raises(InputError, match=message):
        captioner.generate({"image": images})


def test_a_misspelt_key_is_named(captioner):
    with pytest.raises(InputError, match=r"needs samples\['image'\]; samples has imgae\. Did you mean imgae"):
        captioner.generate({"imgae": pixels()})
    with pytest.raises(InputError, match="samples is a Tensor; give a dict"):
        captioner.generate(pixels())


TEXT_READERS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "blip_caption": lambda model, samples: model(samples),
    "blip_vqa": lambda model, samples: model.predict_answers(samples, answer_list=["red", "blue"]),
    "blip_image_text_matching": lambda model, samples: model(samples),
    "blip_feature_extractor": lambda model, samples: model.extract_features(samples),
    "blip_classification": lambda model, samples: model.predict({**samples, "label": [0]}),
    "blip_nlvr": lambda model, samples: model.predict(
        {**samples, "image0": samples["image"], "image1": samples["image"], "label": [0]}
    ),
    "blip_retrieval": lambda model, samples: model({**samples, "image_id": [0]}),
    "blip_pretrain": lambda model, samples: model(samples),
}


@functools.cache
def built(name: str) -> Any:
    settings = {"num_classes": 2} if name == "blip_classification" else {}
    torch.manual_seed(0)
    return load_model(name, "tiny", is_eval=True, **settings)


@pytest.mark.parametrize("name", TEXT_READERS)
def test_one_text_for_one_image_may_be_a_str(name):
    text = "a picture of a red circle"
    model, read = built(name), TEXT_READERS[name]
    results = []
    for form in (text, [text]):
        torch.manual_seed(0)
        results.append(read(model, {"image": PICTURE, "text_input": form}))
    assert repr(results[0]) == repr(results[1])


@pytest.mark.parametrize("name", TEXT_READERS)
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], r"samples\['text_input'\] is empty"),
        ([None], r"samples\['text_input'\]\[0\] is a NoneType"),
        ([7], r"is a int \(7\), not a text"),
        (7, "is a int; give a list of texts"),
        (["half an emoji \ud83d"], r"\[0\] is not valid Unicode: a lone surrogate.* at 14"),
        (None, r"needs samples\['text_input'\]"),
    ],
    ids=["empty", "none", "number", "no list", "surrogate", "missing"],
)
def test_other_texts_are_refused_in_words(name, texts, message):
    with pytest.raises(InputError, match=message):
        TEXT_READERS[name](built(name), {"image": pixels(1), "text_input": texts})


@pytest.mark.parametrize("name", TEXT_READERS)
def test_wrong_images_are_refused_by_every_model(name):
    with pytest.raises(InputError, match="they are not normalized"):
        TEXT_READERS[name](built(name), {"image": pixels(1) * 255, "text_input": ["a picture of a star"]})


def test_captions_that_leave_nothing_to_learn_are_refused():
    model = load_model("blip_caption", "tiny", prompt="a picture of ")
    with pytest.raises(InputError, match=r"\[1\] \('a red'\) leaves nothing to learn behind the"):
        model({"image": pixels(), "text_input": ["a picture of a star", "a red"]})
    with pytest.raises(InputError, match="max_txt_len is 4"):
        short = load_model("blip_caption", "tiny", prompt="a picture of ", max_txt_len=4)
        short({"image": pixels(1), "text_input": ["a picture of a star"]})
    assert model({"image": pixels(1), "text_input": ["a picture of "]}).loss.isfinite()


def test_captions_without_the_prompt_are_said_once(caplog):
    model = load_model("blip_caption", "tiny", prompt="a picture of ")
    for _ in range(2):
        assert model({"image": pixels(1), "text_input": ["there is a large red star here"]}).loss.isfinite()
    assert caplog.text.count("does not begin with the model's prompt") == 1
