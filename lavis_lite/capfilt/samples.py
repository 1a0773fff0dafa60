"""A sample of a crawl: the bytes of its image, its texts, and why it cannot be used, where it cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lavis_lite.capfilt.selection import Candidate
from lavis_lite.common.decoding import lone_surrogate
from lavis_lite.datasets.web.texts import TextError, decode, read_fields

# Levels of nesting that every later reader may need on its own stack.
_SPARE_LEVELS = 100


class SampleError(ValueError):
    """A sample that cannot be used: "KIND: DETAIL"; samples are counted by kind."""


@dataclass(frozen=True)
class Sample:
    """A sample on its way through.

    Attributes:
        key: its name in the shard.
        members: the bytes of its image and whatever else it holds, by suffix.
        about: its json.
        candidates: its texts; none where it failed.
        failure: why it could not be used, as "KIND: DETAIL"; empty where it could.
    """

    key: str
    members: Mapping[str, bytes]
    about: Mapping[str, Any]
    candidates: Sequence[Candidate] = ()
    failure: str = ""

    @property
    def kept(self) -> list[Candidate]:
        """The texts that it keeps."""
        return [candidate for candidate in self.candidates if candidate.kept]

    @property
    def failure_kind(self) -> str:
        """The part of `failure` that other samples may share."""
        return self.failure.partition(": ")[0]


def parse_json(members: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what the json of a sample holds; nothing where it is missing or empty.

    Raises:
        SampleError: it is not a JSON object, is nested too deeply, or has one key twice.
    """
    if not members.get("json", b"").strip():
        return {}
    try:
        about = read_fields(dict(members))
        nested: Any = about
        for _ in range(_SPARE_LEVELS):
            nested = [nested]
        json.dumps(nested)
    except RecursionError:
        raise SampleError("invalid json: nested too deeply") from None
    except TextError as error:
        raise SampleError(f"invalid json: {error}") from error
    return about


def decode_text(content: bytes, what: str) -> str:
    """Return the text of a file: UTF-8, or UTF-16 and UTF-32 with a byte order mark.

    Args:
        what: how errors call the file.

    Raises:
        SampleError: anything else. Other encodings cannot be told apart, and a guess could change the text.
    """
    try:
        text = decode(content, what)
    except TextError as error:
        raise SampleError(f"unusable text: {error}") from error
    if "\0" in text:
        raise SampleError(f"unusable text: its {what} has zero bytes; write it as UTF-8")
    return text


def texts_of(sample: Sample, text_key: str) -> list[str]:
    """Return the web's texts of a sample, without empty ones; a run of white space becomes one space.

    Args:
        text_key: "txt", or the field of the json that holds a text or a list of texts. A field that is
            missing, null or NaN holds none.

    Raises:
        SampleError: something other than text, or text that no file can hold.
    """
    if text_key == "txt":
        values: Any = [decode_text(sample.members.get("txt", b""), ".txt")]
    else:
        values = sample.about.get(text_key)
        values = values if isinstance(values, list) else [values]
    texts = []
    for value in values:
        if value is None or value != value:
            continue
        if not isinstance(value, str):
            raise SampleError(f"unusable text: {text_key!r} holds {type(value).__name__}, not text")
        texts.append(" ".join(whole(value, f"unusable text: {text_key!r}").split()))
    return [text for text in texts if text]


def whole(text: str, what: str) -> str:
    """Return `text`.

    Raises:
        SampleError: it has half of a surrogate pair, which UTF-8 cannot express.
    """
    place = lone_surrogate(text)
    if place is not None:
        raise SampleError(f"{what} has half of a surrogate pair ({text[place]!a}) at position {place}")
    return text


def opted_out(about: Mapping[str, Any], keys: Sequence[str]) -> bool:
    """Return whether one of the fields `keys` is true or says "noai", "noimageai" or "noindex"."""
    for key in keys:
        value = about.get(key)
        if isinstance(value, str) and value.lower() not in ("", "false", "no", "0"):
            words = ("noai", "noindex", "noimageai", "true", "yes", "1")
            if any(word in value.lower() for word in words):
                return True
        elif not isinstance(value, str) and value and value == value:  # NaN says nothing
            return True
    return False
