"""Bytes of a text file to text, exactly or not at all."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from lavis_lite.common.files import FileError, open_regular
from lavis_lite.datasets.annotations.errors import AnnotationError

# UTF-32 stands first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Other separators (U+2028, form feed) are part of a text.
LINE_END = re.compile(r"\r\n|\r|\n")


def read_bytes(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        AnnotationError: missing, not a regular file, or it may not be read.
    """
    try:
        with open_regular(path) as file:
            return file.read()
    except (FileError, OSError) as error:
        raise AnnotationError(str(error)) from error


def decode(content: bytes, path: Path) -> str:
    """Return `content` as text: UTF-8, or what its byte order mark says (Excel's "Unicode text" has one).

    Raises:
        AnnotationError: another encoding, or a NUL character; names file, line and byte.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise AnnotationError(_undecodable(content, path, encoding, error)) from error
    place = text.find("\0")
    if place >= 0:
        raise AnnotationError(
            f"{path}: line {_line_at(text, place)}: holds a NUL character: the file is damaged, not a text, "
            "or UTF-16 without a byte order mark. Save it as UTF-8."
        )
    return text


def _undecodable(content: bytes, path: Path, encoding: str, error: UnicodeDecodeError) -> str:
    if encoding != "utf-8":
        return f"{path}: byte {error.start} is not valid {encoding}: the file is damaged. Save it as UTF-8."
    line = len(LINE_END.findall(content[: error.start].decode("latin-1"))) + 1
    byte = content[error.start]
    in_windows = bytes([byte]).decode("cp1252", errors="replace")
    return (
        f"{path}: line {line}, byte {error.start} (0x{byte:02X}) is not UTF-8. In Windows' code page 1252 it "
        f"would be {in_windows!r}; if the file is of that encoding, convert it: "
        f"iconv -f cp1252 -t utf-8 {path.name} > utf8_{path.name}"
    )


def _line_at(text: str, place: int) -> int:
    return len(LINE_END.findall(text[:place])) + 1
