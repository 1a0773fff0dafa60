"""Files on web servers: what an answer means, what is tried again, and never two versions in one file."""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import os
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2

logger = logging.getLogger(__name__)

HINT = "Look at the address in a browser, or set the path of a local copy in its place."
RETRYABLE_STATUS = {408, 425, 429, 500, 502, 503, 504}
MAX_REDIRECTS = 10
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
# Retries are counted again from zero only after this much more has come.
PROGRESS_BYTES = 1 << 20
# A server that sends less than this is as good as broken: a timeout sees only complete silence.
SLOWEST_BYTES_PER_SECOND = 1024
SLOW_SECONDS = 60.0


class DownloadError(OSError):
    """A file that cannot be read from its address; the message names the address and the reason."""


class TransientError(Exception):
    """An attempt failed in a way that another attempt may not.

    Args:
        message: what happened.
        wait_seconds: for how long the server asks to wait.
    """

    def __init__(self, message: str, wait_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True)
class Version:
    """What a server says of the file that it sends.

    Attributes:
        validator: a strong ETag or a date, by which If-Range recognizes the version; None where the
            server gives neither.
        length: in bytes; None where the server does not say.
    """

    validator: str | None = None
    length: int | None = None


class Retries:
    """How often one file has been asked for without progress.

    Args:
        url: as errors name it.
        limit: how many further attempts follow a failed one.
    """

    def __init__(self, url: str, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"retries must not be negative, found {limit}")
        self.url = url
        self.limit = limit
        self._failures = 0
        self._bytes = 0

    def count(self, size: int) -> None:
        """Note that `size` further bytes have come."""
        self._bytes += size
        if self._bytes >= PROGRESS_BYTES:
            self._failures = self._bytes = 0

    def wait_after(self, error: TransientError) -> None:
        """Wait before the next attempt.

        Raises:
            DownloadError: there have been enough attempts.
        """
        self._failures += 1
        self._bytes = 0
        if self._failures > self.limit:
            raise DownloadError(
                f"{without_password(self.url)}: {error}, in attempt {self._failures}. {HINT}"
            ) from error
        seconds = max(error.wait_seconds, FIRST_WAIT_SECONDS * 2 ** (self._failures - 1))
        logger.warning("%s: %s; trying again in %g s", without_password(self.url), error, seconds)
        time.sleep(min(seconds, LONGEST_WAIT_SECONDS))


@dataclass
class Answer:
    """The content that a server sends.

    Attributes:
        response: an open response; close it after use.
        start: the place in the file where the content begins: the one asked for, or 0.
        version: which version of the file it is.
    """

    url: str
    response: httpx2.Response
    start: int
    version: Version

    def chunks(self) -> Iterator[bytes]:
        """Yield the content as it comes, up to the end of the file.

        Raises:
            TransientError: the connection broke off, or the server is too slow.
            DownloadError: a web page comes in place of the file.
        """
        position, watch = self.start, _SpeedWatch()
        pieces = self.response.iter_raw()
        while True:
            try:
                with watch:
                    chunk = next(pieces, b"")
            except (httpx2.TransportError, httpx2.StreamError, OSError) as error:
                length = f" of {self.version.length}" if self.version.length is not None else ""
                raise TransientError(
                    f"broken off after {position}{length} bytes ({_reason(error)})"
                ) from error
            if not chunk:
                break
            if position == 0:
                self._refuse_page(chunk)
            position += len(chunk)
            yield chunk
            watch.check(len(chunk))
        if self.version.length is not None and position != self.version.length:
            raise TransientError(f"broken off after {position} of {self.version.length} bytes")

    def _refuse_page(self, beginning: bytes) -> None:
        """Refuse the pages that log-ins, quotas and hotel networks send in a file's place."""
        kind = self.response.headers.get("Content-Type", "").split(";")[0].strip().lower()
        if (
            kind == "text/html"
            and beginning.lstrip()[:1] == b"<"
            and not _path(self.url).endswith((".html", ".htm"))
        ):
            raise DownloadError(
                f"{without_password(self.url)}: the server answers with a web page in place of the "
                f"file. {HINT}"
            )


def connect(url: str, offset: int, version: Version, timeout_seconds: float) -> Answer:
    """Ask for a file from byte `offset` on, or from its beginning where it is not surely the same version.

    Args:
        url: an http(s) address.
        offset: how many bytes of `version` are here already.
        version: what the server said when it sent them.
        timeout_seconds: for which the server may stay silent.

    Raises:
        TransientError: the server cannot be reached, or not now.
        DownloadError: it refuses, or the address is not valid.
    """
    headers = {"User-Agent": "lavis-lite", "Accept-Encoding": "identity"}
    if offset and version.validator:
        headers |= {"Range": f"bytes={offset}-", "If-Range": version.validator}
    response = _send(url, headers, timeout_seconds)
    if response.status_code == 200:
        _refuse_encoding(url, response)
        return Answer(url, response, 0, Version(_validator(response), _length(response)))
    if response.status_code == 206 and _continues(response, offset, version):
        return Answer(url, response, offset, version)
    response.close()
    if response.status_code in (206, 416) and "Range" in headers:
        return connect(url, 0, Version(), timeout_seconds)
    answer = f"the server answers {response.status_code} {response.reason_phrase}"
    if response.status_code in RETRYABLE_STATUS:
        raise TransientError(answer, _seconds_to_wait(response))
    raise DownloadError(f"{without_password(url)}: {answer}. {HINT}")


class RemoteFile(io.RawIOBase):
    """The bytes behind an address, read once from beginning to end, also over several connections.

    Reading raises `DownloadError` where the server refuses, stays away for `retries` further attempts,
    or has another version by now: what was read is never made of two versions.

    Args:
        url: an http(s) address.
        timeout_seconds: for which the server may stay silent.
        retries: further attempts after a failed one.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 60, retries: int = 3) -> None:
        self.url = url
        self.timeout_seconds = timeout_seconds
        self._retries = Retries(url, retries)
        self._position = 0
        self._digest = hashlib.blake2b()  # of all bytes so far, to compare another version with
        self._version = Version()
        self._answer: Answer | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; return how many bytes, 0 at the end of the file."""
        while not self._rest:
            try:
                if self._answer is None:
                    self._connect()
                self._rest = memoryview(next(self._chunks, b""))
            except TransientError as error:
                self._disconnect()
                self._retries.wait_after(error)
                continue
            if not self._rest:
                return 0
            self._digest.update(self._rest)
            self._position += len(self._rest)
            self._retries.count(len(self._rest))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Close the connection."""
        self._disconnect()
        super().close()

    def _disconnect(self) -> None:
        if self._answer is not None:
            self._answer.response.close()
            self._answer = None

    def _connect(self) -> None:
        """Take an answer that continues where reading stands."""
        self._answer = connect(self.url, self._position, self._version, self.timeout_seconds)
        self._chunks = self._answer.chunks()
        if self._answer.start < self._position:
            self._skip_what_is_known(self._answer)
        self._version = self._answer.version

    def _skip_what_is_known(self, answer: Answer) -> None:
        """Read the beginning of a whole file again, and compare it: not every server names its versions."""
        digest = hashlib.blake2b()
        left = self._position if answer.version == self._version else 0
        while left:
            chunk = next(self._chunks, b"")
            digest.update(chunk[:left])
            if not chunk:
                break
            if len(chunk) > left:
                self._chunks = _chain(chunk[left:], self._chunks)
            left -= min(left, len(chunk))
        if digest.digest() != self._digest.digest():
            raise DownloadError(
                f"{without_password(self.url)}: the server's file changed while it was being read."
            )


def check_web_redirect(url: str, goal: str) -> None:
    """Refuse a redirect that leaves the web, or gives up the encryption of https.

    Raises:
        DownloadError: names both addresses.
    """
    before, after = urlsplit(url).scheme, urlsplit(goal).scheme
    if after not in ("http", "https") or (before == "https" and after == "http"):
        raise DownloadError(
            f"{without_password(url)}: redirects to {without_password(goal)}, which is not followed "
            f"from {before}. {HINT}"
        )


def without_password(url: str) -> str:
    """Return an address as it may be shown: without a user's name and password.

    >>> without_password("https://me:secret@host/a.tar")
    'https://host/a.tar'
    """
    return re.sub(r"//[^/?#]*@", "//", url, count=1)


class _SpeedWatch:
    """How fast a server sends, measured only while it is waited for; the reader may take its time."""

    def __init__(self) -> None:
        self._bytes = 0
        self._seconds = 0.0
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self._seconds += time.monotonic() - self._began

    def check(self, size: int) -> None:
        """Count a chunk of `size` bytes.

        Raises:
            TransientError: the server is slower than it may be.
        """
        self._bytes += size
        if self._seconds < SLOW_SECONDS:
            return
        if self._bytes < SLOWEST_BYTES_PER_SECOND * self._seconds:
            raise TransientError(f"only {self._bytes} bytes came in {self._seconds:.0f} s")
        self._bytes, self._seconds = 0, 0.0


def _send(url: str, headers: dict[str, str], timeout_seconds: float) -> httpx2.Response:
    """Return the answer to a request, its content unread, after redirects within the web."""
    try:
        request = _client(os.getpid()).build_request("GET", url, headers=headers, timeout=timeout_seconds)
        for _ in range(MAX_REDIRECTS):
            response = _client(os.getpid()).send(request, stream=True, follow_redirects=False)
            if not response.has_redirect_location:
                return response
            response.close()
            if response.next_request is None:
                raise DownloadError(
                    f"{without_password(url)}: redirects to an address that is not valid. {HINT}"
                )
            check_web_redirect(str(response.url), str(response.next_request.url))
            request = response.next_request
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise DownloadError(f"{without_password(url)}: is not a valid address ({error}).") from error
    except httpx2.TransportError as error:
        if isinstance(error.__context__, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY" in str(error):
            raise DownloadError(
                f"{without_password(url)}: the server's certificate is not trusted ({error})."
            ) from error
        raise TransientError(f"the server cannot be reached ({_reason(error)})") from error
    raise DownloadError(f"{without_password(url)}: redirects more than {MAX_REDIRECTS} times. {HINT}")


@functools.lru_cache(maxsize=1)
def _client(process: int) -> httpx2.Client:
    """Return the client of a process: connections must not be shared with a forked one."""
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it tells of every request
    return httpx2.Client()


def _continues(response: httpx2.Response, offset: int, version: Version) -> bool:
    """Return whether a part begins at `offset` of `version`. Some servers ignore If-Range."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) != offset or _validator(response) != version.validator:
        return False
    return version.length is None or match[2] in (str(version.length), "*")


def _refuse_encoding(url: str, response: httpx2.Response) -> None:
    """Refuse what was compressed for the transfer only; some servers mark every .gz file so."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity" and not _path(url).endswith(("gz", "bz2", "xz", "zst", "br")):
        response.close()
        raise DownloadError(
            f"{without_password(url)}: the server sends it as {encoding}, though asked not to. {HINT}"
        )


def _validator(response: httpx2.Response) -> str | None:
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _length(response: httpx2.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _seconds_to_wait(response: httpx2.Response) -> float:
    """Return what Retry-After says, in seconds or as a date."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


def _reason(error: Exception) -> str:
    return "timed out" if isinstance(error, httpx2.TimeoutException) else str(error) or type(error).__name__


def _path(url: str) -> str:
    return urlsplit(url).path


def _chain(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others
