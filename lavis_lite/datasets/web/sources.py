"""The bytes of a shard: of a file, a web server or a command, gzipped or not."""

from __future__ import annotations

import io
import os
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from lavis_lite.common.files import open_regular
from lavis_lite.common.storage.http import RemoteFile

REMOTE = ("http://", "https://")
PIPE = "pipe:"
BUFFER_BYTES = 1 << 20
# A gzipped shard may grow to this many bytes, and beyond them to this many times its size. Images hardly
# grow; only a decompression bomb comes near it.
FREE_EXPANSION_BYTES = 64 << 20
MAX_EXPANSION = 50
GZIP_MAGIC = b"\x1f\x8b"
# First bytes of files that are mistaken for tar shards -> what they are, and what to do.
_OTHER_FORMATS = {
    b"BZh": "is compressed with bzip2: decompress it (bunzip2)",
    b"\xfd7zXZ\0": "is compressed with xz: decompress it (unxz)",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd: decompress it (unzstd)",
    b"\x04\x22\x4d\x18": "is compressed with lz4: decompress it (unlz4)",
    b"PK\x03\x04": "is a zip archive: pack its files as a tar",
    b"7z\xbc\xaf": "is a 7z archive: pack its files as a tar",
    b"Rar!": "is a rar archive: pack its files as a tar",
    b"PAR1": "is a parquet file: name it in a data set of annotations",
    b"<": "is a web page, perhaps a log-in or error page saved in its place: fetch the shard again",
    b"version https://git-lfs": "is a pointer of git-lfs: fetch its content (git lfs pull)",
}


class ShardError(OSError):
    """A shard that cannot be read; the message names it and says why."""


class ByteSource:
    """A stream that can take bytes back.

    Args:
        stream: the bytes.
        size: of a seekable file, in bytes; None for a stream.

    Attributes:
        position: of the next byte.
    """

    def __init__(self, stream: IO[bytes] | io.BufferedReader, size: int | None = None) -> None:
        self._stream = stream
        self._size = size
        self._unread = b""
        self._unread_from = 0  # bytes of `_unread` that were read again
        self.position = 0

    @property
    def is_seekable(self) -> bool:
        """True if `go_to` may be called."""
        return self._size is not None

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, or all that are left."""
        data = self._unread[self._unread_from : self._unread_from + count]
        self._unread_from += len(data)
        if len(data) < count:
            self._unread, self._unread_from = b"", 0
            data += self._read_stream(count - len(data), self.position + len(data))
        self.position += len(data)
        return data

    def skip(self, count: int) -> int:
        """Skip up to `count` bytes; return how many there were."""
        if self._size is not None:
            count = max(0, min(count, self._size - self.position))
            self.go_to(self.position + count)
            return count
        left = count
        while left and (data := self.read(min(left, BUFFER_BYTES))):
            left -= len(data)
        return count - left

    def unread(self, data: bytes) -> None:
        """Take back `data`, which must be the last bytes that were read."""
        if len(data) <= self._unread_from:
            self._unread_from -= len(data)
        else:
            self._unread, self._unread_from = data + self._unread[self._unread_from :], 0
        self.position -= len(data)

    def go_to(self, position: int) -> None:
        """Continue at `position` of a seekable source."""
        self._stream.seek(position)
        self._unread, self._unread_from = b"", 0
        self.position = position

    def _read_stream(self, count: int, position: int) -> bytes:
        if self._size is not None:  # allocate nothing for a size that the file does not have
            count = max(0, min(count, self._size - position))
        parts = []
        while count and (data := self._stream.read(min(count, BUFFER_BYTES))):
            parts.append(data)
            count -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class GunzipStream(io.RawIOBase):
    """The decompressed bytes of a gzip stream, up to where it is damaged.

    Attributes:
        error: why the stream ended early, empty if it did not.
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._decoder = zlib.decompressobj(31)
        self._input = b""
        self._output = b""
        self._bytes_in = self._bytes_out = 0
        self.error = ""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as possible; return the number of bytes, 0 at the end and after an error."""
        while not self._output and not self.error and self._has_input():
            self._decompress(len(buffer))
        data, self._output = self._output[: len(buffer)], self._output[len(buffer) :]
        self._bytes_out += len(data)
        if self._bytes_out > FREE_EXPANSION_BYTES + MAX_EXPANSION * self._bytes_in:
            self.error = f"its gzip data grows to more than {MAX_EXPANSION} times its size (a bomb?)"
            data = self._output = b""
        buffer[: len(data)] = data
        return len(data)

    def _decompress(self, count: int) -> None:
        before, data = self._decoder.copy(), self._input
        try:
            self._output = self._decoder.decompress(data, count)
            self._input = self._decoder.unconsumed_tail
        except zlib.error as error:
            self.error = f"its gzip data is damaged ({error}): what was read just before may be, too"
            self._output = _up_to_error(before, data)
        if not data and not self._output and not self._decoder.eof:
            self.error = "its gzip data breaks off"

    def _has_input(self) -> bool:
        """Read more input if needed; return False at the end, or if other data follows."""
        if not self._decoder.eof:
            self._input = self._input or self._read_input()
            return True
        rest = self._decoder.unused_data or self._read_input()
        while rest and not rest.strip(b"\0"):
            rest = self._read_input()
        if not rest:
            return False
        if not rest.startswith(GZIP_MAGIC[: len(rest)]):
            self.error = "other bytes follow its gzip data"
            return False
        self._decoder, self._input = zlib.decompressobj(31), rest
        return True

    def _read_input(self) -> bytes:
        data = self._stream.read(1 << 16)
        self._bytes_in += len(data)
        return data


def _up_to_error(decoder: Any, data: bytes) -> bytes:
    """Return the output before the error in `data`, which the failed call did not return."""
    output = b""
    try:
        for index in range(len(data)):
            output += decoder.decompress(data[index : index + 1])
    except zlib.error:
        pass
    return output


@contextmanager
def open_source(name: str, allow_pipe: bool) -> Iterator[tuple[ByteSource, GunzipStream | None]]:
    """Open a shard; yield its bytes, decompressed if they are gzipped, and the decompressor if so.

    Args:
        name: a local path, an http(s) address, or ``pipe:`` and a command.
        allow_pipe: whether a command may be run.

    Raises:
        FileError: no such local file, or a pipe, device or folder instead.
        OSError: it cannot be reached, or its command fails.
    """
    if is_pipe(name):
        if not allow_pipe:
            raise ShardError(f"{name!r} runs a command, which is not allowed.")
        with _output_of(name[len(PIPE) :]) as stream:
            yield _unpacked(stream, None)
    elif name.startswith(REMOTE):
        with io.BufferedReader(RemoteFile(name), BUFFER_BYTES) as stream:
            yield _unpacked(stream, None)
    else:
        with open_regular(name) as file:
            yield _unpacked(file, os.fstat(file.fileno()).st_size)


def is_pipe(name: str) -> bool:
    """Return whether the name of a shard is a command."""
    return name.lower().startswith(PIPE)


def _unpacked(stream: IO[bytes], size: int | None) -> tuple[ByteSource, GunzipStream | None]:
    assert isinstance(stream, io.BufferedReader)
    if stream.peek(2).startswith(GZIP_MAGIC):
        gunzip = GunzipStream(stream)
        return ByteSource(io.BufferedReader(gunzip, 1 << 17)), gunzip
    return ByteSource(stream, size), None


def describe_beginning(beginning: bytes) -> str:
    """Return what a file that is not a tar seems to be, by its first bytes."""
    if not beginning:
        return "is empty"
    for magic, text in _OTHER_FORMATS.items():
        if beginning.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(magic):
            return text
    return f"is no tar file (it begins with {beginning[:16]!r})"


@contextmanager
def _output_of(command: str) -> Iterator[IO[bytes]]:
    with subprocess.Popen(command, shell=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
            # A command that cannot write what follows the end of the archive would fail.
            while process.stdout.read(BUFFER_BYTES):
                pass
        except BaseException:
            process.terminate()  # it would wait for a reader forever
            raise
    if process.returncode:
        raise ShardError(f"the command ended with code {process.returncode}")
