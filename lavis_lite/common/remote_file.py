"""A file on a web server, read from its beginning to its end without a copy on this machine."""

from __future__ import annotations

import http.client
import io

from lavis_lite.common.http_requests import (
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

_CHUNK_BYTES = 1 << 18


class RemoteFile(io.RawIOBase):
    """The bytes behind an address. Where a connection breaks off, the next one goes on from there.

    Reading raises `DownloadError` where the server refuses, stays away for `retries` further attempts,
    or has another file by now: what was read is never the half of one that looks like a whole.

    Args:
        timeout_seconds: for which the server may stay silent.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 60, retries: int = 3) -> None:
        self.url = url
        self.timeout_seconds = timeout_seconds
        self.retries = retries
        self._position = 0
        self._length: int | None = None
        self._validator: str | None = None
        self._response: http.client.HTTPResponse | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """Read into `buffer`; return how many bytes, 0 at the end."""
        return retried(lambda: self._read_some(buffer), self.url, self.retries)

    def close(self) -> None:
        """Let the connection go."""
        self._let_go()
        super().close()

    def _let_go(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _read_some(self, buffer: memoryview) -> int:
        if self._response is None:
            self._response = self._connect()
        try:
            count = self._response.readinto(buffer)
        except (OSError, http.client.HTTPException) as error:
            self._let_go()
            raise BrokenOffError(f"broken off ({error or type(error).__name__})") from error
        if not count and self._length is not None and self._position < self._length:
            self._let_go()
            raise BrokenOffError(f"broken off after {self._position} of {self._length} bytes")
        self._position += count
        return count

    def _connect(self) -> http.client.HTTPResponse:
        """Return an answer that goes on from where reading stands."""
        headers = request_headers(self._position, self._validator)
        response = open_address(self.url, headers, self.timeout_seconds)
        if not self._position:
            self._length, self._validator = length_of(response.headers), validator_of(response.headers)
            check_encoding(self.url, response.headers)
        elif response.status == 206 and continues_at(response.headers, self._position, self._length):
            pass
        elif response.status == 200 and self._is_the_same(response):
            self._skip(response)
        else:
            response.close()
            raise DownloadError(f"{self.url}: the server's file changed while it was being read.")
        return response

    def _is_the_same(self, response: http.client.HTTPResponse) -> bool:
        same_length = length_of(response.headers) == self._length
        return same_length and validator_of(response.headers) == self._validator

    def _skip(self, response: http.client.HTTPResponse) -> None:
        """Read and forget what is known already, of a server that only gives whole files."""
        left = self._position
        while left:
            try:
                count = len(response.read(min(left, _CHUNK_BYTES)))
            except (OSError, http.client.HTTPException) as error:
                raise BrokenOffError(f"broken off ({error or type(error).__name__})") from error
            if not count:
                raise BrokenOffError(f"broken off after {self._position - left} bytes")
            left -= count
