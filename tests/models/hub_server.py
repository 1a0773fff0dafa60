"""A hub on the loopback: one repository, its files, and a record of what was asked for."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        path = self.path.split("?")[0]
        files = {file.name: file.read_bytes() for file in sorted(server.folder.iterdir())}
        api, resolve = f"/api/models/{server.repository}", f"/{server.repository}/resolve/"
        if path.startswith(resolve):
            name = path.removeprefix(resolve).split("/", 1)[1]
            if self.command == "GET":
                server.downloaded.append(name)
            self.answer(files[name], {"ETag": f'"{etag(files[name])}"'})
        elif path.startswith(f"{api}/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": etag(content)}
                for name, content in files.items()
            ]
            self.answer(json.dumps(tree).encode())
        elif path.startswith(api):
            siblings = [{"rfilename": name} for name in files]
            about = {
                "id": server.repository,
                "modelId": server.repository,
                "sha": COMMIT,
                "siblings": siblings,
            }
            self.answer(json.dumps(about).encode())
        else:
            self.answer(b"", {"X-Error-Code": "RepoNotFound"}, status=404)

    def do_HEAD(self):
        self.do_GET()

    def answer(self, body, headers=None, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments):
        """Stay silent."""


def etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def running_hub(repository: str, folder: Path) -> Iterator[ThreadingHTTPServer]:
    """Serve `folder` as `repository`; `url` of the result is the hub's, `downloaded` the names asked for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.repository, server.folder, server.downloaded = repository, folder, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
