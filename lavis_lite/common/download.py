"""One HTTP download into one file: resumed, retried, never taken for complete when it is not."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from lavis_lite.common.http_requests import (
    REMEDY,
    BrokenOffError,
    DownloadError,
    check_encoding,
    continues_at,
    length_of,
    open_address,
    request_headers,
    retried,
    validator_of,
)

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 18


@dataclass
class _Origin:
    """What a partial file is the beginning of."""

    url: str
    validator: str | None  # a strong ETag or a date, by which If-Range knows the same version again
    length: int | None

    @classmethod
    def load(cls, path: Path) -> _Origin | None:
        """Return what `save` wrote; None if nothing readable is there."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        return None

    def save(self, path: Path) -> None:
        """Write into `path`."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def download(url: str, partial: Path, *, timeout_seconds: float, retries: int) -> bool:
    """Read `url` completely into `partial`, going on from what lies there of an earlier attempt.

    `<partial>.json` says what that is the beginning of. It goes on only if the server still has the
    same version, and starts anew if it cannot tell. A complete one is not asked for again until it is
    discarded.

    Returns:
        whether the content came in more than one piece.

    Raises:
        DownloadError: the server refuses, or broke off `retries` + 1 times, or the disk is full.
    """
    return retried(lambda: _attempt(url, partial, timeout_seconds), url, retries)


def discard(partial: Path) -> None:
    """Remove what `download` wrote, so far as it is still there, and what it noted."""
    partial.unlink(missing_ok=True)
    _origin_path(partial).unlink(missing_ok=True)


def _origin_path(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _attempt(url: str, partial: Path, timeout_seconds: float) -> bool:
    origin = _Origin.load(_origin_path(partial))
    offset = 0
    if origin is not None and origin.url == url and origin.validator and partial.exists():
        offset = partial.stat().st_size
        if offset == origin.length:
            return True
    headers = request_headers(offset, origin.validator if offset else None)
    with open_address(url, headers, timeout_seconds) as response:
        if response.status == 206 and offset:
            _check_range(response.headers, offset, origin.length, partial)
        elif response.status == 200:
            offset, origin = 0, _Origin(url, validator_of(response.headers), length_of(response.headers))
            check_encoding(url, response.headers)
        elif response.status == 416:
            discard(partial)
            raise BrokenOffError("the server's file is now shorter than what came of it before")
        else:
            raise DownloadError(f"{url}: the server answers {response.status} {response.reason}. {REMEDY}")
        size = _write(response, partial, offset, origin)
    if origin.length is not None and size != origin.length:
        raise BrokenOffError(f"broken off after {size} of {origin.length} bytes")
    return offset > 0


def _write(response: http.client.HTTPResponse, partial: Path, offset: int, origin: _Origin) -> int:
    """Write the answer to `partial` from `offset` on; return the size it has then."""
    silent = sys.stderr is None or not sys.stderr.isatty()
    bar = tqdm(
        total=origin.length, initial=offset, unit="B", unit_scale=True, desc=partial.stem, disable=silent
    )
    try:
        with bar, partial.open("ab" if offset else "wb") as file:
            # After the old content is gone, or a kill here would leave it with the new origin.
            origin.save(_origin_path(partial))
            for chunk in _chunks(response):
                if file.tell() == 0:
                    _check_not_a_page(origin.url, response.headers, chunk)
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
            return file.tell()
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{partial}: cannot be written ({error}); free some space, or set LAVIS_LITE_CACHE to a folder "
            "with more. The next attempt goes on from what is there."
        ) from error


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK_BYTES)
        except http.client.IncompleteRead as error:
            yield error.partial
            raise BrokenOffError("broken off by the server") from error
        except (OSError, http.client.HTTPException) as error:
            raise BrokenOffError(f"broken off ({error or type(error).__name__})") from error
        if not chunk:
            return
        yield chunk


def _check_range(headers: Message, offset: int, length: int | None, partial: Path) -> None:
    if continues_at(headers, offset, length):
        return
    discard(partial)
    raise BrokenOffError(f"the server continues with {headers.get('Content-Range')} in place of {offset}-")


def _check_not_a_page(url: str, headers: Message, beginning: bytes) -> None:
    """Refuse the pages that log-ins, quotas and hotel networks put in a file's place."""
    is_page = headers.get_content_type() == "text/html" and beginning.lstrip()[:1] == b"<"
    if is_page and not urlsplit(url).path.endswith((".html", ".htm")):
        raise DownloadError(f"{url}: the server answers with a web page in place of the file. {REMEDY}")
