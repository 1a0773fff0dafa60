"""The text of a sample is what its file says, or the sample is named."""

from __future__ import annotations

import pytest

from lavis_lite.datasets.web.texts import TextError, texts_of


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"], ids=lambda encoding: encoding
)
def test_texts_of_every_unicode_encoding_are_read(encoding):
    assert texts_of({"txt": "ein Café 😀\n".encode(encoding)}, "txt") == ["ein Café 😀"]
    assert texts_of({"json": '{"caption": "Café"}'.encode(encoding)}, "caption") == ["Café"]


def test_caption_is_the_field_of_the_json_and_txt_the_member():
    raw = {"txt": b"IMG_1234", "json": b'{"caption": "a clean one", "txt": "a field"}'}
    assert texts_of(raw, "caption") == ["a clean one"] and texts_of(raw, "txt") == ["IMG_1234"]


def test_of_a_list_the_empty_texts_are_left_out():
    assert texts_of({"json": b'{"texts": [" a ", "", "b"]}'}, "texts") == ["a", "b"]


@pytest.mark.parametrize(
    ("raw", "key", "message"),
    [
        ({"txt": b"a caf\xe9"}, "txt", r"its \.txt is not UTF-8 \(byte 0xe9 at 5\); write it as UTF-8"),
        ({"txt": b"\xff\xfea"}, "txt", r"its \.txt is not UTF-16-LE \(byte 0x61 at 2\)"),
        ({"txt": b" \n"}, "txt", "has no text under 'txt': it is empty"),
        ({"json": b'{"caption": "x", "url": 1}'}, "txt", r"has no \.txt; its json has caption: set text_key"),
        ({}, "txt", r"has no \.txt$"),
        ({"txt": b"a"}, "caption", r"no json with a field 'caption'; its \.txt is read with text_key: txt"),
        (
            {"json": b'{"caption": "x", "url": "y"}'},
            "captoin",
            r"no field 'captoin'; did you mean caption\? \(fields: caption, url\)",
        ),
        ({"json": b'{"caption": "half \\ud83d"}'}, "caption", r"lone surrogate, \\ud83d\) at 5"),
        ({"json": b'{"caption": ["good", "half \\ud83d"]}'}, "caption", "lone surrogate"),
        ({"json": b'{"caption": NaN}'}, "caption", "has no text under 'caption', but nan"),
        ({"json": b'{"caption": null}'}, "caption", "has no text under 'caption', but None"),
        ({"json": b'{"caption": []}'}, "caption", "it is empty"),
        ({"json": b'{"caption": {"en": "x"}}'}, "caption", "has no text under 'caption', but {"),
        ({"json": b'["caption"]'}, "caption", "its json is a list, not an object"),
        ({"json": b"[" * 200_000}, "caption", "its json cannot be read"),
        ({"json": b'{"a": ' * 200_000}, "caption", "its json cannot be read"),
        ({"json": b'{"caption": "x"'}, "caption", "its json cannot be read"),
        ({"json": b'{"caption": ' + b"9" * 10_000 + b"}"}, "caption", "its json cannot be read"),
        ({"json": b'{"caption": "caf\xe9"}'}, "caption", r"its \.json is not UTF-8 \(byte 0xe9 at 16\)"),
        ({"json": b'{"caption": "a", "caption": "b"}'}, "caption", "the key 'caption' occurs twice"),
    ],
)
def test_what_cannot_be_read_as_it_is_says_so(raw, key, message):
    with pytest.raises(TextError, match=message):
        texts_of(raw, key)
