"""Captions and questions are cleaned as BLIP's were, and no text crashes."""

import json

import pytest

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.processors import BlipCaptionProcessor, BlipQuestionProcessor, load_processor


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A Cat", "a cat"),
        ('a.b!c"d(e)f*g#h:i;j~k', "a b c d e f g h i j k"),
        ("two,dogs' tail-end? yes/no", "two,dogs' tail-end? yes/no"),
        ("a   cat \t on", "a cat on"),
        ("a cat.\n", "a cat"),
        ("  a cat  ", "a cat"),
        ("on\ra\u2028mat\u2029today\x85now\x0bhere", "on a mat today now here"),
        ("ÉTÉ À LA MER, 夏の海", "été à la mer, 夏の海"),
        ("", ""),
        ('." ()', ""),
    ],
)
def test_a_caption_is_cleaned(caption, expected):
    assert BlipCaptionProcessor().pre_caption(caption) == expected


def test_a_caption_is_cut_after_max_words():
    words = [f"w{i}" for i in range(60)]
    assert BlipCaptionProcessor()(" ".join(words)) == " ".join(words[:50])
    assert BlipCaptionProcessor.build(max_words=3)(" ".join(words)) == "w0 w1 w2"


def test_the_prompt_stands_in_front_and_does_not_count_as_words():
    processor = load_processor("blip_caption", {"prompt": "a picture of ", "max_words": 2})
    assert processor("A big. Dog") == "a picture of a big"
    assert processor("") == "a picture of "


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What COLOR is it?", "what color is it?"),
        ('What is "this" (a T.V.)?', "what is this a tv?"),
        ("who  is there?   ", "who  is there?"),
        ("who\ris\u2028there?\n", "who is there?"),
        ("", ""),
    ],
)
def test_a_question_is_cleaned(question, expected):
    assert BlipQuestionProcessor().pre_question(question) == expected


def test_a_question_is_cut_after_max_words():
    assert load_processor("blip_question", {"max_words": 3})("one two three four?") == "one two three"


@pytest.mark.parametrize("name", ["blip_caption", "blip_question"])
@pytest.mark.parametrize("text", ["x" * 10_000, "word " * 2_000, "." * 10_000, " \u2028" * 5_000])
def test_10_000_characters_do_not_crash(name, text):
    processed = load_processor(name)(text)
    assert len(processed.split()) <= 50
    assert processed == processed.rstrip()


@pytest.mark.parametrize("name", ["blip_caption", "blip_question"])
def test_half_an_emoji_leaves_text_that_can_be_encoded(name):
    cut = json.loads('"a smile \\ud83d today"')
    assert load_processor(name)(cut).encode().decode() == "a smile \ufffd today"


@pytest.mark.parametrize("name", ["blip_caption", "blip_question"])
@pytest.mark.parametrize("value", [None, ["a", "b"], 7])
def test_what_is_not_a_text_is_refused(name, value):
    with pytest.raises(TypeError, match=f"expected a text, found {type(value).__name__}"):
        load_processor(name)(value)


@pytest.mark.parametrize("name", ["blip_caption", "blip_question"])
def test_wrong_settings_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=r"max_word is not a key of .*did you mean max_words"):
        load_processor(name, {"max_word": 3})
    with pytest.raises(ConfigError, match="max_words: must be at least 1, found 0"):
        load_processor(name, {"max_words": 0})
