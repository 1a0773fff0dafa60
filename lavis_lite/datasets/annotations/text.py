"""Strict decoding of text files."""

from __future__ import annotations

import re
from pathlib import Path

from lavis_lite.common.decoding import encoding_of
from lavis_lite.common.files import FileError, open_regular
from lavis_lite.datasets.annotations.errors import AnnotationError

# Other separators (U+2028, form feed) are part of a text.
LINE_END = re.compile(r"\r\n|\r|\n")


def read_bytes(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        AnnotationError: missing, not a regular file, or not readable.
    """
    try:
        with open_regular(path) as file:
            return file.read()
    except (FileError, OSError) as error:
        raise AnnotationError(str(error)) from error


def decode(content: bytes, path: Path) -> str:
    """Return `content` as text: UTF-8, or as its byte order mark says (Excel's "Unicode text" has one).

    Raises:
        AnnotationError: another encoding, or a NUL character; names file, line and byte.
    """
    encoding = encoding_of(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise AnnotationError(
                f"{path}: byte {error.start} is not valid {encoding}: the file is damaged. Save it as UTF-8."
            ) from error
        line = len(LINE_END.findall(content[: error.start].decode("latin-1"))) + 1
        byte = content[error.start]
        in_windows = bytes([byte]).decode("cp1252", errors="replace")
        raise AnnotationError(
            f"{path}: line {line}, byte {error.start} (0x{byte:02X}) is not UTF-8. In Windows' code page "
            f"1252 it would be {in_windows!r}; if the file has that encoding, convert it: "
            f"iconv -f cp1252 -t utf-8 {path.name} > utf8_{path.name}"
        ) from error
    nul = text.find("\0")
    if nul >= 0:
        raise AnnotationError(
            f"{path}: line {len(LINE_END.findall(text[:nul])) + 1}: holds a NUL character: the file is "
            "damaged, not a text, or UTF-16 without a byte order mark. Save it as UTF-8."
        )
    return text
