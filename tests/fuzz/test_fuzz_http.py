"""Servers that misbehave by a fixed seed: what is read is one version of the file, or a named error."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from damage import bounded, seeds
from file_server import Behaviour, running_server

from lavis_lite.common.storage import http as web
from lavis_lite.common.storage.cache import fetch
from lavis_lite.common.storage.http import DownloadError, RemoteFile

VERSIONS = [bytes([number]) * 30_000 + bytes(range(256)) * 400 for number in range(3)]


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with running_server() as server:
        yield server


@pytest.fixture(autouse=True)
def quick_and_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(web, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(web, "LONGEST_WAIT_SECONDS", 0.005)


class ChangingBehaviour(Behaviour):
    """Another version of the file, or other faults, from one request to the next."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(f"http {seed}")
        self.version = 0
        self.lied_about_length = False
        super().__init__()
        self.named = self.draw.random() < 0.7  # whether a tag tells the versions apart
        self.requested = _Requests(self)

    def change(self) -> None:
        """Draw what the next answer is like."""
        draw = self.draw
        if draw.random() < 0.3:
            self.version = draw.randrange(len(VERSIONS))
        self.content = VERSIONS[self.version]
        self.headers = {"ETag": f'"{self.version}"'} if self.named else {}
        self.ranges, self.ignores_if_range = draw.random() < 0.7, draw.random() < 0.5
        self.tells_length = draw.random() < 0.9
        self.content_range = draw.choice((None, None, None, "bytes 5-9/10", "nonsense", "bytes */3"))
        self.cuts = [draw.choice((None, draw.randrange(len(self.content))))] if self.tells_length else []
        fault = draw.randrange(12)
        if fault == 0:
            length = draw.choice(("nonsense", "-5", "999999999999999999", "0", "7"))
            self.headers["Content-Length"] = length
            self.lied_about_length |= length in ("0", "7")
        elif fault == 6:
            location = draw.choice(("/data/captions.json", "ftp://a/b", "//", "http://[", "\\", "file:///x"))
            status = draw.choice((204, 302, 400, 403, 404, 408, 416, 429, 500, 503))
            self.answers = [(status, {"Location": location, "Retry-After": "soon"})]
        else:
            self.headers |= ODD_HEADERS.get(fault, {})


ODD_HEADERS = {
    1: {"Content-Encoding": "gzip"},
    2: {"Content-Type": "text/html"},
    3: {"ETag": 'W/"weak"'},
    4: {"Transfer-Encoding": "chunked"},
    5: {"Last-Modified": "yesterday"},
    7: {"ETag": "é"},
}


class _Requests(list):
    """The requests so far; the server behaves differently after each."""

    def __init__(self, behaviour: ChangingBehaviour) -> None:
        self.behaviour = behaviour

    def append(self, request: tuple[str, str | None]) -> None:
        super().append(request)
        self.behaviour.change()


def is_one_version(content: bytes, behaviour: ChangingBehaviour) -> bool:
    """Whether `content` is a whole version, or the part of one that the server said was all."""
    if behaviour.lied_about_length:
        return any(version.startswith(content) for version in VERSIONS)
    return content in VERSIONS


@pytest.mark.parametrize("seed", seeds(quick=40, full=700))
def test_a_download_is_one_version_or_an_error(server: ThreadingHTTPServer, tmp_path: Path, seed: int):
    server.behaviour = behaviour = ChangingBehaviour(seed)
    target = tmp_path / "captions.json"
    wanted = hashlib.sha256(VERSIONS[0]).hexdigest() if seed % 2 else None
    with bounded(seconds=20, mebibytes=64):
        try:
            fetch(server.url, destination=target, sha256=wanted, timeout_seconds=2, retries=2)
        except DownloadError as error:
            assert "captions.json" in str(error)
            assert not target.exists()
            return
    content = target.read_bytes()
    assert content == VERSIONS[0] if wanted else is_one_version(content, behaviour)


@pytest.mark.parametrize("seed", seeds(quick=40, full=700))
def test_a_stream_is_one_version_or_an_error(server: ThreadingHTTPServer, seed: int):
    server.behaviour = behaviour = ChangingBehaviour(seed)
    with bounded(seconds=20, mebibytes=64):
        try:
            with io.BufferedReader(RemoteFile(server.url, timeout_seconds=2, retries=2)) as file:
                content = file.read()
        except DownloadError as error:
            assert "captions.json" in str(error)
            return
    assert is_one_version(content, behaviour)
