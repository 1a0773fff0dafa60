"""The text of a sample, as its file says it or not at all."""

from __future__ import annotations

import codecs
import json
from typing import Any

from lavis_lite.common.files import first_line
from lavis_lite.common.registry import nearest
from lavis_lite.datasets.web.samples import RawSample
from lavis_lite.datasets.web.tar import shown

TXT = "txt"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class TextError(ValueError):
    """A sample without a usable text; the message says why."""


def texts_of(raw: RawSample, text_key: str) -> list[str]:
    """Return the texts of a sample, without the spaces around them; at least one.

    Args:
        text_key: "txt" for the member ``.txt``, else the field of its json: a text or a list of texts.

    Raises:
        TextError: there is none, or it cannot be read without changing it.
    """
    if text_key == TXT:
        if TXT not in raw:
            raise TextError(f"has no .txt{_elsewhere(raw)}")
        value: Any = decode(raw[TXT], ".txt")
    else:
        value = _field(raw, text_key)
    texts = value if isinstance(value, list) else [value]
    for text in texts:
        _check(text, text_key)
    stripped = [text.strip() for text in texts if text.strip()]
    if not stripped:
        raise TextError(f"has no text under {text_key!r}: it is empty")
    return stripped


def decode(content: bytes, what: str) -> str:
    """Return UTF-8 as a text, or UTF-16 and UTF-32 that begin with a byte order mark.

    Args:
        what: how the error calls it.

    Raises:
        TextError: it is neither.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise TextError(
            f"its {what} is not {error.encoding.upper()} (byte 0x{content[error.start]:02x} at "
            f"{error.start}); write it as UTF-8"
        ) from error


def read_fields(raw: RawSample) -> dict[str, Any]:
    """Return the json of a sample, nothing where it has none.

    Raises:
        TextError: it is not a json object.
    """
    if "json" not in raw:
        return {}
    try:
        fields = json.loads(decode(raw["json"], ".json"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        if isinstance(error, TextError):
            raise
        raise TextError(f"its json cannot be read ({first_line(error)})") from error
    if not isinstance(fields, dict):
        raise TextError(f"its json is a {type(fields).__name__}, not an object")
    return fields


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise TextError(f"its json has the key {shown(twice, 60)!r} twice")
    return fields


def _field(raw: RawSample, key: str) -> Any:
    fields = read_fields(raw)
    if key in fields:
        return fields[key]
    if "json" not in raw:
        raise TextError(f"has no json with a field {key!r}{_elsewhere(raw)}")
    near = nearest(key, fields)
    hint = f"; did you mean {near[0]}?" if near else ""
    names = ", ".join(shown(name, 40) for name in list(fields)[:12]) or "none"
    also = "; its .txt is read with text_key: txt" if TXT in raw else ""
    raise TextError(f"its json has no field {key!r}{hint} (fields: {names}{also})")


def _elsewhere(raw: RawSample) -> str:
    """Say where else a text may be, as the end of an error."""
    if TXT in raw:
        return "; its .txt is read with text_key: txt"
    try:
        names = [shown(name, 40) for name, value in read_fields(raw).items() if isinstance(value, str | list)]
    except TextError:
        names = []
    return f"; its json has {', '.join(names[:12])}: set text_key to one of them" if names else ""


def _check(text: Any, key: str) -> None:
    if not isinstance(text, str):
        raise TextError(f"has no text under {key!r}, but {text!r:.40}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            f"its text under {key!r} has half a character (a lone surrogate, "
            f"\\u{ord(text[error.start]):04x}) at {error.start}"
        ) from error
