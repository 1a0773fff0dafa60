"""A strict reader of tar archives: everything in an archive is a member, or is reported as damage.

Other readers take a damaged header for the end of the archive. This one reports it and continues at the
next header whose checksum is right. It allocates no memory for a size that the caller has not accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from lavis_lite.datasets.web.sources import ByteSource

BLOCK_BYTES = 512
MAX_EXTENSION_BYTES = 1 << 20  # of a long name or a pax header
# Limits of the search for headers in a damaged archive, so that a hostile one cannot keep it going.
MAX_GO_BACK_BYTES = 1 << 30
MAX_CANDIDATES = 100_000
MAX_END_BYTES = 1 << 20  # of zeros at the end; more are an incomplete download
_SCAN_BYTES = 1 << 16
_SUSPICIOUS_ZEROS = bytes(64)  # neither texts nor usual images end in them
_MAGIC = b"ustar"
_MAGIC_OFFSET = 257

FILE = "file"
FOLDER = "folder"
SPARSE = "sparse file"
_KINDS = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "character device",
    b"4": "block device",
    b"5": FOLDER,
    b"6": "named pipe",
    b"S": SPARSE,
    b"M": "part of a file from another volume",
    b"V": "volume label",
    b"D": "folder listing",
}
_EXTENSIONS = (b"x", b"g", b"L", b"K", b"X")  # long names and pax records, for the member that follows
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6", b"V")  # regardless of the size in their headers


class NotTarError(ValueError):
    """The file has no valid tar header."""


@dataclass(frozen=True)
class TarMember:
    """A member of an archive.

    Attributes:
        name: as stored; bytes that are not UTF-8 are escaped (``\\xe9``).
        kind: "file", "folder", "hard link", ...
        size: in bytes.
        content: empty if it was not requested.
    """

    name: str
    kind: str
    size: int
    content: bytes = b""


@dataclass(frozen=True)
class Damage:
    """A damaged part of an archive; the text says where it is, and what is lost."""

    text: str


# The items of a part of an archive; returns whether the archive may have more.
TarItems = Generator[TarMember | Damage, None, bool]


class _Header(NamedTuple):
    name: str
    size: int
    type: bytes
    has_sparse_map: bool


@dataclass
class _Last:
    """The file before the current position. It is yielded only once what follows it is valid."""

    member: TarMember
    start: int  # of its data
    end: int  # of its padding
    data: bytes  # with its padding; empty if skipped


class TarReader:
    """Iterate over the members and damages of an archive.

    Args:
        source: the archive.
        is_wanted: whether the content of a member, passed without content, will be used.
        contents: read the content of wanted members, instead of skipping it.

    Raises:
        NotTarError: while iterating, if there is not one valid header.
    """

    def __init__(
        self, source: ByteSource, is_wanted: Callable[[TarMember], bool], contents: bool = True
    ) -> None:
        self._source = source
        self._is_wanted = is_wanted
        self._contents = contents
        self._last: _Last | None = None
        self._headers = 0
        self._go_back_bytes = MAX_GO_BACK_BYTES
        self._candidates = MAX_CANDIDATES
        self._global_pax: dict[str, str] = {}
        self._clear_extensions()

    def __iter__(self) -> Iterator[TarMember | Damage]:
        more = True
        while more:
            start = self._source.position
            block = self._source.read(BLOCK_BYTES)
            header = parse_header(block)
            if header is not None:
                self._headers += 1
                if self._last is not None:
                    yield self._last.member
                    self._last = None
                read = self._read_extension if header.type in _EXTENSIONS else self._read_member
                more = yield from read(header)
            elif not block.strip(b"\0"):
                more = yield from self._read_zeros(start, len(block))
            else:
                more = yield from self._find_next_header(start, block)

    def _clear_extensions(self) -> None:
        self._pax: dict[str, str] = {}
        self._long_name: str | None = None
        self._extension_error = ""

    def _read_member(self, header: _Header) -> TarItems:
        pax = {**self._global_pax, **self._pax}
        name = pax.get("GNU.sparse.name") or pax.get("path") or self._long_name or header.name
        error = self._extension_error
        self._clear_extensions()
        kind = _KINDS.get(header.type, f"member of the unknown type {header.type!r}")
        if any(key.startswith("GNU.sparse.") for key in pax):
            kind = SPARSE
        elif kind == FILE and name.endswith("/"):
            kind = FOLDER
        size = header.size
        if re.fullmatch(r"[0-9]{1,19}", pax.get("size", "")):
            size = int(pax["size"])
        elif "size" in pax:
            error = f"its extended header has the size {pax['size']!r:.40}"
        if header.has_sparse_map:
            while len(block := self._source.read(BLOCK_BYTES)) == BLOCK_BYTES and block[504]:
                pass
        member = TarMember(name, kind, 0 if header.type in _WITHOUT_DATA else size)
        if error:
            yield Damage(f"{shown(name)} is not used: {error}")
        is_wanted = not error and kind == FILE and self._is_wanted(member)
        start, padded, data = self._source.position, _padded(member.size), b""
        if is_wanted and (self._contents or not self._source.is_seekable):
            data = self._source.read(padded)
            available = len(data)
        else:
            available = self._source.skip(padded)
        if available < member.size:
            yield Damage(f"breaks off in {shown(name)}, after {available} of its {member.size} bytes")
            return False
        if is_wanted:
            content = data[: member.size] if self._contents else b""
            self._last = _Last(replace(member, content=content), start, start + padded, data)
        elif not error:
            yield member
        return True

    def _read_extension(self, header: _Header) -> TarItems:
        if header.size > MAX_EXTENSION_BYTES:
            self._extension_error = f"its extended header has {header.size} bytes"
            available = self._source.skip(_padded(header.size))
        else:
            data = self._source.read(_padded(header.size))
            available = len(data)
            self._apply_extension(header.type, data[: header.size])
        if available < header.size:
            yield Damage(f"breaks off in the extended header {shown(header.name)}")
        return available >= header.size

    def _apply_extension(self, type_: bytes, data: bytes) -> None:
        if type_ == b"L":
            self._long_name = _decoded(data.rstrip(b"\0"))
        elif type_ != b"K":  # the long name of a link's target
            records = _pax_records(data)
            if records is None:
                self._extension_error = "its extended header is damaged"
            elif type_ == b"g":
                self._global_pax.update(records)
            else:
                self._pax = records

    def _read_zeros(self, start: int, length: int) -> TarItems:
        """Read a block of zeros, and on to the end of the file or to what follows the zeros."""
        last = self._last.member if self._last is not None else None
        self._last = None
        if last is not None:
            yield last
        if length < BLOCK_BYTES:
            if start == 0 and length == 0:
                raise NotTarError("is empty")
            yield Damage(
                f"ends at byte {start + length} without the end-of-archive marker: it was cut off, and "
                "members may be missing"
            )
            return False
        while block := self._source.read(_SCAN_BYTES):
            if rest := block.lstrip(b"\0"):
                aligned = (len(block) - len(rest)) // BLOCK_BYTES * BLOCK_BYTES
                self._source.unread(block[aligned:])
                yield Damage(
                    f"has zeros from byte {start} to {self._source.position} and more after them: members "
                    "were overwritten there, or archives joined end to end"
                )
                return True
        if self._source.position - start > MAX_END_BYTES:
            yield Damage(f"has only zeros from byte {start} on: perhaps it was not fetched completely")
        elif last is not None and last.content.endswith(_SUSPICIOUS_ZEROS):
            yield Damage(
                f"{shown(last.name)}, its last member, ends in zeros: was it overwritten from there?"
            )
        return False

    def _find_next_header(self, start: int, block: bytes) -> TarItems:
        """Continue at the next valid header; decide whether the member before the damage is whole."""
        self._clear_extensions()
        last, self._last = self._last, None
        padding_is_clean = last is None or self._padding_is_clean(last)
        self._go_back(last, block)
        header = self._scan()
        if header is None and not self._headers:
            raise NotTarError("holds no tar header")
        if last is not None:
            if header is not None and header < last.end:
                yield Damage(f"{shown(last.member.name)} is not used: bytes are missing in it")
                return True
            if padding_is_clean:
                yield last.member
            else:
                yield Damage(f"{shown(last.member.name)} is not used: bytes were put into it")
        where = _describe_damage(start, block) + (f", after {shown(last.member.name)}" if last else "")
        if header is None:
            yield Damage(f"{where}: the rest is lost")
        else:
            yield Damage(f"{where}: what lies before the next one, at byte {header}, is lost")
        return header is not None

    def _padding_is_clean(self, last: _Last) -> bool:
        """Return whether zeros follow a member's data, as they do unless bytes were inserted."""
        if last.data:
            return not last.data[last.member.size :].strip(b"\0")
        position = self._source.position
        self._source.go_to(last.start + last.member.size)
        padding = self._source.read(last.end - last.start - last.member.size)
        self._source.go_to(position)
        return not padding.strip(b"\0")

    def _go_back(self, last: _Last | None, block: bytes) -> None:
        """Go back to the data of the last member: if bytes are missing in it, it holds the next header."""
        length = last.end - last.start if last is not None else 0
        if last is None or length > self._go_back_bytes:
            self._source.unread(block)
            return
        self._go_back_bytes -= length
        if last.data:
            self._source.unread(last.data + block)
        else:  # skipped, so the source is seekable
            self._source.go_to(last.start)

    def _scan(self) -> int | None:
        """Go to the next valid header and return its position, None if there is none."""
        window = b""
        while True:
            chunk = self._source.read(_SCAN_BYTES)
            window += chunk
            magic = window.find(_MAGIC, _MAGIC_OFFSET)
            while magic >= 0 and self._candidates:
                start = magic - _MAGIC_OFFSET
                if parse_header(window[start : start + BLOCK_BYTES]) is not None:
                    self._source.unread(window[start:])
                    return self._source.position
                self._candidates -= 1
                magic = window.find(_MAGIC, magic + 1)
            if not chunk or not self._candidates:
                return None
            window = window[-(BLOCK_BYTES - 1) :]


def parse_header(block: bytes) -> _Header | None:
    """Return the header in a block, None unless its checksum is right."""
    if len(block) != BLOCK_BYTES:
        return None
    checksum, size = _number(block[148:156]), _number(block[124:136])
    if checksum is None or size is None or not block[148:156].strip(b" \0"):
        return None
    summed = block[:148] + b" " * 8 + block[156:]
    if checksum not in (sum(summed), sum(memoryview(summed).cast("b"))):  # some writers had signed bytes
        return None
    name = block[:100].partition(b"\0")[0]
    if block[_MAGIC_OFFSET:265] == b"ustar\x0000":  # GNU's layout has times where this one has the prefix
        prefix = block[345:500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    type_ = block[156:157]
    return _Header(_decoded(name), size, type_, type_ == b"S" and bool(block[482]))


def _number(field: bytes) -> int | None:
    """Return the number in a field of a header, None if malformed."""
    if field[0] in (0x80, 0xFF):  # base 256, for large files
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else None
    digits = field.partition(b"\0")[0].strip()
    return None if digits.strip(b"01234567") else int(digits or b"0", 8)


def _pax_records(data: bytes) -> dict[str, str] | None:
    """Return the records ``LENGTH KEY=VALUE\\n`` of a pax header, None if malformed."""
    records: dict[str, str] = {}
    while data.strip(b"\0"):
        match = re.match(rb"(\d{1,7}) ([^=]+)=", data)
        if match is None:
            return None
        length = int(match[1])
        if not match.end() < length <= len(data) or data[length - 1 : length] != b"\n":
            return None
        records[_decoded(match[2])] = _decoded(data[match.end() : length - 1])
        data = data[length:]
    return records


def _describe_damage(start: int, block: bytes) -> str:
    """Describe a block that should be a header, with the name that can still be read in it."""
    name = block[:100].partition(b"\0")[0]
    named = f" (it reads {name.decode('ascii')!r})" if re.fullmatch(rb"[!-~][ -~]{2,}", name) else ""
    if len(block) < BLOCK_BYTES:
        return f"breaks off at byte {start + len(block)}, within a header{named}"
    return f"no valid header at byte {start}{named}"


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", errors="backslashreplace")


def shown(name: str, limit: int = 120) -> str:
    """Return an untrusted name as one short line that a terminal can show."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
