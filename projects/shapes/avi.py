"""Write a video without any encoder: JPEG frames in an AVI container, which every player reads."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_HAS_INDEX = 0x10
_KEY_FRAME = 0x10


def mjpeg_avi(frames: Sequence[bytes], width: int, height: int, frames_per_second: int) -> bytes:
    """Return the bytes of an AVI file that shows `frames`, each the bytes of a JPEG file.

    The layout is RIFF's: a list of headers, the list ``movi`` of the frames, and an index of them.

    Raises:
        ValueError: no frames, or a rate below 1.
    """
    if not frames or frames_per_second < 1:
        raise ValueError(
            f"{len(frames)} frames at {frames_per_second} a second are no video; give at least 1 of both."
        )
    largest = max(len(frame) for frame in frames)
    headers = _list(
        b"hdrl",
        _chunk(b"avih", _main_header(len(frames), width, height, frames_per_second, largest)),
        _list(
            b"strl",
            _chunk(b"strh", _stream_header(len(frames), width, height, frames_per_second, largest)),
            _chunk(b"strf", _bitmap_header(width, height)),
        ),
    )
    chunks = [_chunk(b"00dc", frame) for frame in frames]
    body = headers + _list(b"movi", *chunks) + _chunk(b"idx1", _index(frames, chunks))
    return _chunk(b"RIFF", b"AVI " + body)


def _chunk(name: bytes, content: bytes) -> bytes:
    padding = b"\0" * (len(content) % 2)  # chunks begin at even places; the size does not count it
    return name + struct.pack("<I", len(content)) + content + padding


def _list(kind: bytes, *chunks: bytes) -> bytes:
    return _chunk(b"LIST", kind + b"".join(chunks))


def _main_header(count: int, width: int, height: int, frames_per_second: int, largest: int) -> bytes:
    microseconds = round(1_000_000 / frames_per_second)
    bytes_per_second = largest * frames_per_second
    streams, first_frame, granularity = 1, 0, 0
    return struct.pack(
        "<14I",
        *(microseconds, bytes_per_second, granularity, _HAS_INDEX, count, first_frame, streams, largest),
        *(width, height, 0, 0, 0, 0),
    )


def _stream_header(count: int, width: int, height: int, frames_per_second: int, largest: int) -> bytes:
    flags, priority, language, first_frame, scale, start = 0, 0, 0, 0, 1, 0
    quality, sample_size = -1, 0  # the decoder's own; frames differ in size
    return struct.pack(
        "<4s4sIHHIIIIIIiI4h",
        *(b"vids", b"MJPG", flags, priority, language, first_frame, scale, frames_per_second),
        *(start, count, largest, quality, sample_size, 0, 0, width, height),
    )


def _bitmap_header(width: int, height: int) -> bytes:
    planes, bits = 1, 24
    size = struct.calcsize("<IiiHH4sIiiII")
    return struct.pack(
        "<IiiHH4sIiiII", size, width, height, planes, bits, b"MJPG", width * height * 3, 0, 0, 0, 0
    )


def _index(frames: Sequence[bytes], chunks: Sequence[bytes]) -> bytes:
    entries = []
    place = len(b"movi")  # counted from the name of the list on
    for frame, chunk in zip(frames, chunks, strict=True):
        entries.append(struct.pack("<4sIII", b"00dc", _KEY_FRAME, place, len(frame)))
        place += len(chunk)
    return b"".join(entries)
