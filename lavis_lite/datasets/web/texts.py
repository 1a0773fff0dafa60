"""The text of a sample, exactly as its file says it or not at all."""

from __future__ import annotations

import json
from typing import Any

from lavis_lite.common.decoding import encoding_of, lone_surrogate, unique_keys
from lavis_lite.common.files import first_line
from lavis_lite.common.registry import nearest
from lavis_lite.datasets.web.samples import RawSample
from lavis_lite.datasets.web.tar import shown

TXT = "txt"


class TextError(ValueError):
    """A sample without a usable text; the message says why."""


def texts_of(raw: RawSample, text_key: str) -> list[str]:
    """Return the texts of a sample, stripped; at least one.

    Args:
        text_key: "txt" for the member ``.txt``, else the field of its json: a text or a list of texts.

    Raises:
        TextError: there is no text, or it cannot be read without changing it.
    """
    if text_key != TXT:
        value = _field(raw, text_key)
    elif TXT in raw:
        value = decode(raw[TXT], ".txt")
    else:
        raise TextError(f"has no .txt{_other_texts(raw)}")
    texts = value if isinstance(value, list) else [value]
    for text in texts:
        if not isinstance(text, str):
            raise TextError(f"has no text under {text_key!r}, but {text!r:.40}")
        surrogate = lone_surrogate(text)
        if surrogate is not None:
            raise TextError(
                f"its text under {text_key!r} has half a character (a lone surrogate, "
                f"\\u{ord(text[surrogate]):04x}) at {surrogate}"
            )
    stripped = [text.strip() for text in texts if text.strip()]
    if not stripped:
        raise TextError(f"has no text under {text_key!r}: it is empty")
    return stripped


def decode(content: bytes, what: str) -> str:
    """Return UTF-8 as a text, or UTF-16 and UTF-32 that begin with a byte order mark.

    Args:
        what: name of the content in errors.

    Raises:
        TextError: another encoding.
    """
    try:
        return content.decode(encoding_of(content))
    except UnicodeDecodeError as error:
        raise TextError(
            f"its {what} is not {error.encoding.upper()} (byte 0x{content[error.start]:02x} at "
            f"{error.start}); write it as UTF-8"
        ) from error


def read_fields(raw: RawSample) -> dict[str, Any]:
    """Return the json of a sample, nothing if it has none.

    Raises:
        TextError: not a json object.
    """
    if "json" not in raw:
        return {}
    text = decode(raw["json"], ".json")
    try:
        fields = json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise TextError(f"its json cannot be read ({first_line(error)})") from error
    if not isinstance(fields, dict):
        raise TextError(f"its json is a {type(fields).__name__}, not an object")
    return fields


def _field(raw: RawSample, key: str) -> Any:
    fields = read_fields(raw)
    if key in fields:
        return fields[key]
    if "json" not in raw:
        raise TextError(f"has no json with a field {key!r}{_other_texts(raw)}")
    near = nearest(key, fields)
    hint = f"; did you mean {near[0]}?" if near else ""
    names = ", ".join(shown(name, 40) for name in list(fields)[:12]) or "none"
    also = "; its .txt is read with text_key: txt" if TXT in raw else ""
    raise TextError(f"its json has no field {key!r}{hint} (fields: {names}{also})")


def _other_texts(raw: RawSample) -> str:
    """Return the end of an error: where the sample has other texts."""
    if TXT in raw:
        return "; its .txt is read with text_key: txt"
    try:
        names = [shown(name, 40) for name, value in read_fields(raw).items() if isinstance(value, str | list)]
    except TextError:
        names = []
    return f"; its json has {', '.join(names[:12])}: set text_key to one of them" if names else ""
