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
    with pytest.raises(InputError, match=r"\[1\] \('a red'\) leaves nothing to learn after the"):
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


def test_texts_that_do_not_share_out_among_the_images_are_refused():
    extractor, classifier = built("blip_feature_extractor"), built("blip_classification")
    with pytest.raises(InputError, match="3 texts cannot be divided evenly among 2 images"):
        extractor.extract_features({"image": pixels(), "text_input": ["a", "b", "c"]})
    with pytest.raises(InputError, match="1 texts for 2 images; give one for each image"):
        classifier.predict({"image": pixels(), "text_input": "a star"})
    with pytest.raises(InputError, match="1 lists of texts for 2 images"):
        built("blip_image_text_matching").itm_scores(pixels(), [["a star"]])


def test_an_image_id_is_needed_for_each_image():
    with pytest.raises(InputError, match="1 image ids for 2 images"):
        built("blip_retrieval")({"image": pixels(), "text_input": ["a", "b"], "image_id": [0]})


def test_an_image_id_may_be_a_file_name_that_is_not_utf_8():
    samples = {"image": pixels(), "text_input": ["a", "b"], "image_id": ["caf\udce9.jpg", "a.jpg"]}
    assert built("blip_retrieval")(samples).loss.isfinite()


@pytest.mark.parametrize("name", ["blip_classification", "blip_nlvr"])
def test_classes_are_predicted_without_labels(name):
    samples = {key: pixels(1) for key in ("image", "image0", "image1")} | {"text_input": "a star"}
    assert list(built(name).predict(samples)) == ["predictions"]


@pytest.mark.parametrize("name", ["blip_classification", "blip_nlvr"])
@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, r"needs samples\['label'\]"),
        ([7], "holds 7; the model has classes 0 to 1"),
        ([-1], "holds -1; the model has classes"),
        ([0, 1], r"has shape \(2,\); expected \(1,\)"),
        (0, r"has shape \(\); expected \(1,\)"),
        ([0.5], r"holds torch\.float32 values; give class numbers"),
        (["star"], r"\(\['star'\]\) is not a list of class numbers"),
    ],
)
def test_wrong_labels_are_refused_in_words(name, label, message):
    samples = {key: pixels(1) for key in ("image", "image0", "image1")} | {"text_input": "a star"}
    with pytest.raises(InputError, match=message):
        built(name)({**samples, "label": label})


@pytest.fixture(scope="module")
def answerer():
    return built("blip_vqa")


@pytest.mark.parametrize(
    ("answers", "more"),
    [
        (["red", "blue"], {}),
        ([["red"], ["blue"]], {}),
        ([["red"], ["blue"]], {"weight": [[1.0], [1.0]]}),
        (["red", "blue"], {"n_answers": [1, 1]}),
        (["red", "blue"], {"n_answers": torch.tensor([1, 1]), "weight": torch.ones(2)}),
    ],
)
def test_answers_are_taken_in_every_form(answerer, answers, more):
    questions = {"image": pixels(), "text_input": ["what color?", "what else?"]}
    expected = answerer(
        {**questions, "answer": ["red", "blue"], "n_answers": [1, 1], "weight": [1.0, 1.0]}
    ).loss
    assert torch.equal(answerer({**questions, "answer": answers, **more}).loss, expected)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ("red", "answers for 1 questions, but 2 questions"),
        ([["red"]], "answers for 1 questions, but 2 questions"),
        ([[], ["red"]], r"samples\['answer'\]\[0\] is empty"),
        ([1, 2], r"samples\['answer'\]\[0\] is a int"),
        (7, r"samples\['answer'\] is a int"),
    ],
)
def test_other_answers_are_refused_in_words(answerer, answers, message):
    with pytest.raises(InputError, match=message):
        answerer({"image": pixels(), "text_input": ["what color?", "what else?"], "answer": answers})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"answer_list": "red"}, "answer_list is a str; give a list of answers"),
        ({"answer_list": ["red", 7]}, "is a int"),
        (
            {"answer_list": ["red"], "num_ans_candidates": 0},
            "num_ans_candidates: must be at least 1, found 0",
        ),
    ],
)
def test_other_lists_of_answers_are_refused_in_words(answerer, settings, message):
    with pytest.raises(InputError, match=message):
        answerer.predict_answers({"image": pixels(1), "text_input": "what color?"}, **settings)


def test_a_sparse_tensor_is_refused_and_any_floating_type_is_taken(captioner):
    with pytest.raises(InputError, match="sparse tensor"):
        captioner.generate({"image": pixels().to_sparse()})
    assert captioner.generate({"image": pixels().to(torch.float8_e4m3fn)}, **GREEDY)


def test_without_a_key_that_is_like_it_only_the_keys_are_named(captioner):
    with pytest.raises(InputError) as caught:
        captioner.generate({"question": "what?"})
    assert str(caught.value) == "the model needs samples['image']; samples has question."
