"""Asking a web server for a file: what an answer means, and what may be asked again."""

from __future__ import annotations

import http.client
import logging
import re
import ssl
import time
from collections.abc import Callable
from email.message import Message
from typing import Any, TypeVar
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit

logger = logging.getLogger(__name__)
T = TypeVar("T")

REMEDY = "Look at the address in a browser, or set the path of a local copy in its place."
_LONGEST_WAIT_SECONDS = 60.0
_PASSING_FAULTS = {408, 425, 429, 500, 502, 503, 504}
_HEADERS = {"User-Agent": "lavis-lite", "Accept-Encoding": "identity"}


class DownloadError(OSError):
    """A file that cannot be had from where it was asked for."""


class BrokenOffError(Exception):
    """An attempt failed in a way that another attempt may not."""

    def __init__(self, message: str, wait_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


def retried(attempt: Callable[[], T], url: str, retries: int) -> T:
    """Return what `attempt` returns; where it is broken off, wait and call it again, `retries` times.

    Raises:
        DownloadError: it was broken off each time.
    """
    for number in range(1, retries + 2):
        try:
            return attempt()
        except BrokenOffError as failure:
            if number > retries:
                raise DownloadError(f"{url}: {failure}, in attempt {number}. {REMEDY}") from failure
            wait_seconds = max(failure.wait_seconds, 0.5 * 2 ** (number - 1))
            logger.warning("%s: %s; trying again in %g s", url, failure, wait_seconds)
            time.sleep(min(wait_seconds, _LONGEST_WAIT_SECONDS))
    raise ValueError(f"retries must not be negative, found {retries}")


def request_headers(offset: int = 0, validator: str | None = None) -> dict[str, str]:
    """Return what to send for a file from byte `offset` on, if it is still the version of `validator`."""
    headers = dict(_HEADERS)
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if validator:
            headers["If-Range"] = validator
    return headers


def continues_at(headers: Message, offset: int, length: int | None) -> bool:
    """Whether a part begins at `offset` of a file of `length` bytes (None: nobody knows)."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
    return bool(match) and int(match[1]) == offset and (length is None or match[2] in (str(length), "*"))


def open_address(
    url: str, headers: dict[str, str], timeout_seconds: float
) -> http.client.HTTPResponse | HTTPError:
    """Return the server's answer; a range that does not exist (416) is one.

    Raises:
        BrokenOffError: the server cannot be reached, or not now.
        DownloadError: it refuses, or the address is none.
    """
    ascii_url = quote(url, safe="%/:?#[]@!$&'()*+,;=~")
    try:
        opener = request.build_opener(_WebRedirectHandler)
        return opener.open(request.Request(ascii_url, headers=headers), timeout=timeout_seconds)
    except HTTPError as error:
        if error.code == 416 and "Range" in headers:
            return error
        with error:
            answer = f"the server answers {error.code} {error.reason}"
            if error.code in _PASSING_FAULTS:
                raise BrokenOffError(answer, _seconds_to_wait(error.headers)) from error
            raise DownloadError(f"{url}: {answer}. {REMEDY}") from error
    except DownloadError:
        raise
    except (http.client.InvalidURL, ValueError) as error:
        raise DownloadError(f"{url}: is not a valid address ({error}).") from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{url}: the server's certificate is not trusted ({reason}).") from error
        raise BrokenOffError(f"the server cannot be reached ({reason})") from error


class _WebRedirectHandler(request.HTTPRedirectHandler):
    """Follow to http(s) only, and never from https to http."""

    def redirect_request(
        self, req: request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> request.Request | None:
        """Return the request for `newurl`."""
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise DownloadError(
                f"{req.full_url}: leads on to {newurl}, which is not followed from {req.type}. {REMEDY}"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_encoding(url: str, headers: Message) -> None:
    """Refuse what was compressed for the way only; some servers mark every .gz file so."""
    encoding = headers.get("Content-Encoding", "identity")
    if encoding != "identity" and not urlsplit(url).path.endswith(("gz", "bz2", "xz", "zst", "br")):
        raise DownloadError(f"{url}: the server sends it as {encoding}, though asked not to. {REMEDY}")


def validator_of(headers: Message) -> str | None:
    """Return what If-Range knows the same version again by: a strong ETag or a date."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified")


def length_of(headers: Message) -> int | None:
    """Return how many bytes the answer says to have."""
    length = headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _seconds_to_wait(headers: Message) -> float:
    wait = headers.get("Retry-After", "")
    return float(wait) if wait.isdecimal() else 0.0
