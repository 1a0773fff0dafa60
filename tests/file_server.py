"""A real HTTP server on the loopback that serves one file, and misbehaves as it is told."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 4000  # 1 MB


@dataclass
class Behaviour:
    """What the server does; lists are used up one entry a request."""

    content: bytes = CONTENT
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})
    ranges: bool = True
    ignores_if_range: bool = False
    tells_length: bool = True
    content_range: str | None = None  # in place of the true one
    cuts: list[int | None] = field(default_factory=list)  # close after so many bytes of the body
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # status and headers, no body
    seconds_between_pieces: float = 0.0
    requested: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        behaviour: Behaviour = self.server.behaviour
        asked = self.headers.get("Range")
        behaviour.requested.append((self.path, asked))
        if behaviour.answers:
            status, headers = behaviour.answers.pop(0)
            self.answer(status, {"Content-Length": "0", **headers})
            return
        content, start = behaviour.content, 0
        same = self.headers.get("If-Range") in (None, behaviour.headers.get("ETag"))
        same = same or behaviour.ignores_if_range
        if asked and behaviour.ranges and same:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(content):
                self.answer(416, {"Content-Length": "0"})
                return
            true_range = f"bytes {start}-{len(content) - 1}/{len(content)}"
            shown = {"Content-Range": behaviour.content_range or true_range}
        else:
            shown = {}
        body = content[start:]
        length = {"Content-Length": str(len(body))} if behaviour.tells_length else {}
        self.answer(206 if shown else 200, {**length, **behaviour.headers, **shown})
        cut = behaviour.cuts.pop(0) if behaviour.cuts else None
        self.send_pieces(body[:cut], behaviour.seconds_between_pieces)
        self.close_connection = True

    def answer(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send_pieces(self, body, pause):
        for start in range(0, len(body), 50_000):
            try:
                self.wfile.write(body[start : start + 50_000])
                self.wfile.flush()
            except OSError:  # the client was killed
                return
            time.sleep(pause)

    def log_message(self, *arguments):
        """Stay silent."""


@contextmanager
def running_server() -> Iterator[ThreadingHTTPServer]:
    """Serve on a free port; `url` of the result is the file's address, `behaviour` may be changed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.behaviour = Behaviour()
    server.url = f"http://127.0.0.1:{server.server_port}/data/captions.json"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
