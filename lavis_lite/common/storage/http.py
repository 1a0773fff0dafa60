"""Reading files from web servers: resumed, retried, and never mixing two versions of a file."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import os
import re
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2

logger = logging.getLogger(__name__)

HINT = "Open the address in a browser to check it, or set the path of a local copy instead."
RETRYABLE_STATUS = {408, 425, 429, 500, 502, 503, 504}
MAX_REDIRECTS = 10
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
# The count of failed attempts restarts from zero after this much new content.
PROGRESS_BYTES = 1 << 20
# A timeout only notices complete silence; a server that sends less than this counts as broken, too.
SLOWEST_BYTES_PER_SECOND = 1024
SLOW_SECONDS = 60.0


class DownloadError(OSError):
    """A file that cannot be read from its address; the message names the address and the reason."""


class TransientError(Exception):
    """An attempt failed in a way that a further attempt may not.

    Args:
        message: what happened.
        wait_seconds: how long the server asks to wait.
    """

    def __init__(self, message: str, wait_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


@dataclass(frozen=True)
class Version:
    """A version of a remote file.

    Attributes:
        validator: a strong ETag or a date for If-Range; None if the server sends neither.
        length: in bytes; None if the server does not say.
    """

    validator: str | None = None
    length: int | None = None


@dataclass(frozen=True)
class Answer:
    """An open response with content.

    Attributes:
        response: close it after use.
        start: position in the file where the content begins: the requested offset, or 0.
        version: the version of the file that is being sent.
    """

    url: str
    response: httpx2.Response
    start: int
    version: Version

    def chunks(self) -> Iterator[bytes]:
        """Yield the content up to the end of the file.

        Raises:
            TransientError: the connection broke off, or the server is too slow.
            DownloadError: the content is a web page.
        """
        position, length = self.start, self.version.length
        received, waited = 0, 0.0  # only the waiting counts: the consumer may take its time
        pieces = self.response.iter_raw()
        while True:
            began = time.monotonic()
            try:
                chunk = next(pieces, b"")
            except (httpx2.TransportError, httpx2.StreamError, OSError) as error:
                total = f" of {length}" if length is not None else ""
                raise TransientError(
                    f"broken off after {position}{total} bytes ({_reason(error)})"
                ) from error
            received, waited = received + len(chunk), waited + time.monotonic() - began
            if not chunk:
                break
            if position == 0:
                self._refuse_page(chunk)
            position += len(chunk)
            yield chunk
            if waited >= SLOW_SECONDS:
                if received < SLOWEST_BYTES_PER_SECOND * waited:
                    raise TransientError(f"only {received} bytes came in {waited:.0f} s")
                received, waited = 0, 0.0
        if length is not None and position != length:
            raise TransientError(f"broken off after {position} of {length} bytes")

    def _refuse_page(self, beginning: bytes) -> None:
        """Refuse the pages that logins, quotas and hotel networks send instead of a file."""
        is_page = self.response.headers.get("Content-Type", "").lower().startswith("text/html")
        if (
            is_page
            and beginning.lstrip()[:1] == b"<"
            and not urlsplit(self.url).path.endswith((".html", ".htm"))
        ):
            raise download_error(self.url, "the server answers with a web page in place of the file")


def read_chunks(
    url: str, *, offset: int = 0, version: Version | None = None, timeout_seconds: float, retries: int
) -> Generator[tuple[Answer, bytes], None, None]:
    """Yield the content of `url` from byte `offset` on, reconnecting when the connection breaks off.

    An empty chunk announces each response. The response continues where the previous one ended, or starts
    at 0 again if the server does not confirm that the file is still the same version.

    Args:
        url: an http(s) address.
        offset: how many bytes of `version` are already there.
        version: what the server said about the file when it sent those.
        timeout_seconds: how long the server may stay silent.
        retries: further attempts after a failed one without progress.

    Raises:
        DownloadError: the server refuses, or the last attempt failed.
    """
    if retries < 0:
        raise ValueError(f"retries must not be negative, found {retries}")
    version = version or Version()
    failures, farthest = 0, offset
    while True:
        try:
            answer = connect(url, offset, version, timeout_seconds)
            offset, version = answer.start, answer.version
            with contextlib.closing(answer.response):
                yield answer, b""
                for chunk in answer.chunks():
                    offset += len(chunk)
                    if offset >= farthest + PROGRESS_BYTES:
                        failures, farthest = 0, offset
                    yield answer, chunk
            return
        except TransientError as error:
            failures += 1
            farthest = max(farthest, offset)
            if failures > retries:
                raise download_error(url, f"{error}, in attempt {failures}") from error
            seconds = max(error.wait_seconds, FIRST_WAIT_SECONDS * 2 ** (failures - 1))
            logger.warning("%s: %s; trying again in %g s", without_password(url), error, seconds)
            time.sleep(min(seconds, LONGEST_WAIT_SECONDS))


def connect(url: str, offset: int, version: Version, timeout_seconds: float) -> Answer:
    """Request a file from byte `offset` on, or all of it if it may not be the same version.

    Raises:
        TransientError: the server cannot be reached, or is busy.
        DownloadError: the server refuses, or the address is not valid.
    """
    headers = {"User-Agent": "lavis-lite", "Accept-Encoding": "identity"}
    if offset and version.validator:
        headers |= {"Range": f"bytes={offset}-", "If-Range": version.validator}
    response = _send(url, headers, timeout_seconds)
    if response.status_code == 200:
        encoding = response.headers.get("Content-Encoding", "identity")
        # Some servers declare every .gz file as compressed for the transfer.
        if encoding != "identity" and not urlsplit(url).path.endswith(("gz", "bz2", "xz", "zst", "br")):
            response.close()
            raise download_error(url, f"the server sends it as {encoding}, though asked not to")
        length = response.headers.get("Content-Length", "")
        return Answer(
            url, response, 0, Version(_validator(response), int(length) if length.isdecimal() else None)
        )
    if response.status_code == 206 and _continues(response, offset, version):
        return Answer(url, response, offset, version)
    response.close()
    if response.status_code in (206, 416) and "Range" in headers:
        return connect(url, 0, Version(), timeout_seconds)
    message = f"the server answers {response.status_code} {response.reason_phrase}"
    if response.status_code in RETRYABLE_STATUS:
        raise TransientError(message, _retry_after(response))
    raise download_error(url, message)


class RemoteFile(io.RawIOBase):
    """A remote file, read once from beginning to end, over several connections if need be.

    Reading raises `DownloadError` if the server refuses, does not recover within `retries` further attempts,
    or has replaced the file: the bytes are never a mix of two versions.

    Args:
        url: an http(s) address.
        timeout_seconds: how long the server may stay silent.
        retries: further attempts after a failed one.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 60, retries: int = 3) -> None:
        self.url = url
        self._chunks = self._read_one_version(timeout_seconds, retries)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; return the number of bytes, 0 at the end of the file."""
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Close the connection."""
        self._chunks.close()
        super().close()

    def _read_one_version(self, timeout_seconds: float, retries: int) -> Generator[bytes, None, None]:
        """Yield each byte once. Content that is sent again is compared: not every server names versions."""
        version, position, digest = Version(), 0, hashlib.blake2b()  # of what has been yielded
        repeated, repeated_digest = 0, hashlib.blake2b()  # of what the current response has sent again
        for answer, chunk in read_chunks(self.url, timeout_seconds=timeout_seconds, retries=retries):
            if not chunk:
                if position and answer.version != version:
                    raise self._changed()
                version = answer.version
                if answer.start == 0:
                    repeated, repeated_digest = 0, hashlib.blake2b()
                continue
            known, new = chunk[: position - repeated], chunk[position - repeated :]
            if known:
                repeated += len(known)
                repeated_digest.update(known)
                if repeated == position and repeated_digest.digest() != digest.digest():
                    raise self._changed()
            if new:
                digest.update(new)
                position = repeated = position + len(new)
                yield new
        if repeated < position:
            raise self._changed()

    def _changed(self) -> DownloadError:
        return DownloadError(
            f"{without_password(self.url)}: the server's file changed while it was being read."
        )


def check_web_redirect(url: str, target: str) -> None:
    """Refuse a redirect that leaves the web, or gives up the encryption of https.

    Raises:
        DownloadError: names both addresses.
    """
    before, after = urlsplit(url).scheme, urlsplit(target).scheme
    if after not in ("http", "https") or (before == "https" and after == "http"):
        raise download_error(
            url, f"redirects to {without_password(target)}, which is not followed from {before}"
        )


def download_error(url: str, reason: str) -> DownloadError:
    """Return the error for an address that cannot be read."""
    return DownloadError(f"{without_password(url)}: {reason}. {HINT}")


def without_password(url: str) -> str:
    """Return an address without its user name and password.

    >>> without_password("https://me:secret@host/a.tar")
    'https://host/a.tar'
    """
    return re.sub(r"//[^/?#]*@", "//", url, count=1)


def _send(url: str, headers: dict[str, str], timeout_seconds: float) -> httpx2.Response:
    """Return the response to a GET request after redirects, its content unread."""
    client = _client(os.getpid())
    try:
        request = client.build_request("GET", url, headers=headers, timeout=timeout_seconds)
        for _ in range(MAX_REDIRECTS):
            response = client.send(request, stream=True)
            if response.next_request is None:
                return response
            response.close()
            check_web_redirect(str(response.url), str(response.next_request.url))
            request = response.next_request
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise download_error(url, f"is not a valid address ({error})") from error
    except httpx2.TransportError as error:
        if "CERTIFICATE_VERIFY" in str(error):
            raise download_error(url, f"the server's certificate is not trusted ({error})") from error
        raise TransientError(f"the server cannot be reached ({_reason(error)})") from error
    raise download_error(url, f"redirects more than {MAX_REDIRECTS} times")


@functools.lru_cache(maxsize=1)
def _client(process: int) -> httpx2.Client:
    """Return the client of a process: connections must not be shared with a forked one."""
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every request
    return httpx2.Client()


def _continues(response: httpx2.Response, offset: int, version: Version) -> bool:
    """Return whether a part begins at `offset` of `version`. Some servers ignore If-Range."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) != offset or _validator(response) != version.validator:
        return False
    return version.length is None or match[2] in (str(version.length), "*")


def _validator(response: httpx2.Response) -> str | None:
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _retry_after(response: httpx2.Response) -> float:
    """Return the seconds of Retry-After, which holds a number or a date."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


def _reason(error: Exception) -> str:
    return "timed out" if isinstance(error, httpx2.TimeoutException) else str(error) or type(error).__name__
