"""Our tokenizer against Stanford's: the same captions through both."""

import pytest
from caption_corpus import nasty_captions, ordinary_captions

from lavis_lite.metrics.java import find_java
from lavis_lite.metrics.ptb_tokenizer import clean_caption, tokenize, tokenize_with_java

TIMEOUT_SECONDS = 120


def differing(captions: list[str]) -> list[tuple[str, str, str]]:
    """Return (caption, Stanford's tokens, ours) wherever they differ."""
    theirs = tokenize_with_java(find_java(), captions, TIMEOUT_SECONDS)
    ours = tokenize(captions)
    assert len(theirs) == len(ours) == len(captions)
    return [triple for triple in zip(captions, theirs, ours, strict=True) if triple[1] != triple[2]]


@pytest.mark.java
def test_agrees_with_stanford_on_every_ordinary_caption():
    captions = ordinary_captions(6000)
    assert len(set(captions)) > 5000
    assert differing(captions) == []


@pytest.mark.java
def test_agrees_with_stanford_on_nearly_all_nasty_captions(record_property):
    captions = nasty_captions(12000)
    differences = differing(captions)
    agreement = 1 - len(differences) / len(captions)
    record_property("agreement", agreement)
    assert agreement >= 0.999, differences[:10]


@pytest.mark.java
def test_agrees_with_stanford_on_single_characters():
    # Letters of the common scripts, signs, and all that is drawn or invisible between them.
    ranges = [
        (0x20, 0x7F),
        (0xA0, 0x380),
        (0x400, 0x483),
        (0x2010, 0x2028),
        (0x202A, 0x2300),
        (0x2600, 0x2800),
    ]
    characters = [chr(code) for start, end in ranges for code in range(start, end)]
    captions = [text for c in characters for text in (f"a{c}b", f"x {c} y", f"4{c}5", f"a{c}{c} b")]
    assert differing(captions) == []


@pytest.mark.java
@pytest.mark.parametrize(
    "separator", ["\r", "\n", "\r\n", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85"]
)
def test_a_line_separator_in_a_caption_shifts_no_other_caption(separator):
    captions = [f"a cat{separator}on a mat", "two dogs", f"{separator}", "three birds"]
    expected = ["a cat on a mat", "two dogs", "", "three birds"]
    assert tokenize_with_java(find_java(), captions, TIMEOUT_SECONDS) == expected
    assert tokenize(captions) == expected


@pytest.mark.java
def test_an_unclosed_tag_does_not_swallow_the_captions_after_it():
    captions = ["a sign <b title='x", "two dogs' bowls", '<i id="y', 'a cat" sits', "end"]
    for tokenized in (tokenize_with_java(find_java(), captions, TIMEOUT_SECONDS), tokenize(captions)):
        assert tokenized == ["a sign < b title = x", "two dogs bowls", "< i id = y", "a cat sits", "end"]


@pytest.mark.java
def test_empty_and_blank_captions_keep_their_places():
    captions = ["", " ", "a cat", "", "\u200b", "...", "a dog", ""]
    expected = ["", "", "a cat", "", "", "", "a dog", ""]
    assert tokenize_with_java(find_java(), captions, TIMEOUT_SECONDS) == expected
    assert tokenize(captions) == expected


def test_drops_punctuation_but_keeps_brackets_as_coco_does():
    assert tokenize(['A man, "(smiling)"; ok?'])[0] == "a man -lrb- smiling -rrb- ok"


def test_splits_contractions_and_possessives():
    assert tokenize(["They don't see John's dog; it cannot stay."])[0] == (
        "they do n't see john 's dog it can not stay"
    )


def test_keeps_abbreviations_numbers_and_compounds_whole():
    assert tokenize(["Mr. X paid $1,000.50 for a T-shirt at 5 p.m. on 12/25/2014"])[0] == (
        "mr. x paid $ 1,000.50 for a t-shirt at 5 p.m. on 12/25/2014"
    )


def test_half_a_surrogate_pair_is_cleaned_away():
    assert clean_caption("a \ud83d cat") == "a   cat"
    assert tokenize(["a \ud83d cat"]) == ["a cat"]


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["a", "a ", "a-", "a.", "a,", "'", "<a b='", "1 ", "http://", "&a", "😀"])
def test_ten_thousand_characters_take_no_more_than_seconds(unit):
    tokenized = tokenize([unit * (10_000 // len(unit)), "a cat"])
    assert tokenized[1] == "a cat"
