"""Downloads from a real server that cuts, lies and changes its mind, by processes that die."""

import fcntl
import hashlib
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from file_server import CONTENT, running_server

from lavis_lite.common.storage import download
from lavis_lite.common.storage import http as web
from lavis_lite.common.storage.cache import fetch
from lavis_lite.common.storage.http import DownloadError, check_web_redirect


@pytest.fixture
def server():
    with running_server() as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


def files_of(cache: Path) -> list[str]:
    """Names of all files of the cache but locks."""
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


def ranges_of(server) -> list[str | None]:
    return [asked for _, asked in server.behaviour.requested]


def test_a_broken_download_goes_on_where_it_was_cut(server):
    server.behaviour.cuts = [400_000]
    assert fetch(server.url).read_bytes() == CONTENT
    assert ranges_of(server) == [None, "bytes=400000-"]


def test_a_server_without_ranges_is_read_from_the_start_again(server):
    server.behaviour.cuts, server.behaviour.ranges = [400_000], False
    assert fetch(server.url).read_bytes() == CONTENT
    assert len(ranges_of(server)) == 2


def test_a_server_that_does_not_name_its_versions_is_read_from_the_start_again(server):
    server.behaviour.cuts, server.behaviour.headers = [400_000], {"ETag": 'W/"weak"'}
    assert fetch(server.url).read_bytes() == CONTENT
    assert ranges_of(server) == [None, None]


def interrupted_fetch(server):
    """Leave the first 400,000 bytes behind, as a process does that gives up."""
    server.behaviour.cuts = [400_000]
    with pytest.raises(DownloadError) as caught:
        fetch(server.url, retries=0)
    return str(caught.value)


def test_giving_up_names_the_address_and_keeps_what_came(server, cache):
    message = interrupted_fetch(server)
    assert message.startswith(f"{server.url}: broken off after 400000 of {len(CONTENT)} bytes")
    assert "set the path of a local copy" in message
    assert files_of(cache) == ["captions.json.part", "captions.json.part.json"]
    assert fetch(server.url).read_bytes() == CONTENT
    assert ranges_of(server) == [None, "bytes=400000-"]
    assert files_of(cache) == ["captions.json", "captions.json.sha256"]


def test_what_is_complete_is_not_asked_for_again(server, tmp_path):
    """As after a kill between the last byte and the file's name."""
    for _ in range(2):
        download.download(server.url, tmp_path / "train.json.part", timeout_seconds=5, retries=0)
    assert (tmp_path / "train.json.part").read_bytes() == CONTENT
    assert len(server.behaviour.requested) == 1


def test_content_that_comes_again_is_no_progress(server, monkeypatch):
    """Without ranges, a server that always cuts at the same place would otherwise be asked for ever."""
    monkeypatch.setattr(web, "PROGRESS_BYTES", 100_000)
    monkeypatch.setattr(web, "FIRST_WAIT_SECONDS", 0.001)
    server.behaviour.cuts, server.behaviour.ranges = [300_000] * 9, False
    with pytest.raises(DownloadError, match="in attempt 3"):
        fetch(server.url, retries=2)
    assert len(ranges_of(server)) == 3


def test_a_new_version_on_the_server_is_not_glued_to_the_old(server):
    interrupted_fetch(server)
    server.behaviour.content, server.behaviour.headers = CONTENT[::-1], {"ETag": '"two"'}
    assert fetch(server.url).read_bytes() == CONTENT[::-1]


def test_a_new_version_under_the_old_tag_is_caught_by_the_checksum(server):
    interrupted_fetch(server)
    server.behaviour.content = CONTENT[::-1]
    assert fetch(server.url, sha256=hashlib.sha256(CONTENT[::-1]).hexdigest()).read_bytes() == CONTENT[::-1]
    assert ranges_of(server) == [None, "bytes=400000-", None]


@pytest.mark.parametrize("shown", ["bytes 0-9/10", "nonsense", f"bytes 400000-{len(CONTENT)}/999"])
def test_a_server_that_continues_elsewhere_is_read_from_the_start_again(server, shown):
    interrupted_fetch(server)
    server.behaviour.content_range = shown
    assert fetch(server.url).read_bytes() == CONTENT
    assert ranges_of(server) == [None, "bytes=400000-", None]


def test_a_file_that_became_shorter_is_read_from_the_start_again(server):
    interrupted_fetch(server)
    server.behaviour.content = b"short"
    assert fetch(server.url).read_bytes() == b"short"


def test_a_partial_file_of_unknown_origin_is_not_used(server, cache):
    interrupted_fetch(server)
    next(cache.rglob("*.part.json")).unlink()
    assert fetch(server.url).read_bytes() == CONTENT
    assert ranges_of(server) == [None, None]


def test_the_beginning_of_another_address_is_not_used(server, tmp_path):
    server.behaviour.cuts = [400_000]
    with pytest.raises(DownloadError):
        fetch(server.url, destination=tmp_path / "train.json", retries=0)
    server.behaviour.content = CONTENT[::-1]
    other = fetch(server.url + "?v=2", destination=tmp_path / "train.json")
    assert other.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_fault_of_the_server_is_tried_again(server, status):
    server.behaviour.answers = [(status, {"Retry-After": "0"})]
    assert fetch(server.url).read_bytes() == CONTENT


def test_a_server_that_asks_for_patience_gets_it(server):
    server.behaviour.answers = [(503, {"Retry-After": "1"})]
    begin = time.monotonic()
    fetch(server.url)
    assert time.monotonic() - begin >= 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_final_refusal_is_not_tried_again(server, cache, status):
    server.behaviour.answers = [(status, {})]
    with pytest.raises(DownloadError, match=rf"captions\.json: the server answers {status} .*local copy"):
        fetch(server.url)
    assert len(server.behaviour.requested) == 1
    assert files_of(cache) == []


def test_a_server_that_is_not_there_is_named():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/model.pth"
        with pytest.raises(DownloadError, match=rf"{url}: the server cannot be reached .*in attempt 2"):
            fetch(url, retries=1)


def test_a_silent_server_is_not_waited_for_forever():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/model.pth"
        with pytest.raises(DownloadError, match="timed out"):
            fetch(url, timeout_seconds=0.2, retries=0)


def test_a_web_page_in_place_of_the_file_is_refused(server, cache):
    server.behaviour.content = b"<!doctype html><title>log in</title>"
    server.behaviour.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(DownloadError, match="a web page in place of the file"):
        fetch(server.url)
    assert "captions.json" not in files_of(cache)


def test_a_file_compressed_for_the_way_is_refused(server):
    server.behaviour.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(DownloadError, match="sends it as gzip, though asked not to"):
        fetch(server.url)


@pytest.mark.parametrize("goal", ["ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_a_redirect_leads_to_the_web_only(server, goal):
    server.behaviour.answers = [(302, {"Location": goal})]
    with pytest.raises(DownloadError, match=r"is not followed|not allowed"):
        fetch(server.url)


def test_a_redirect_within_the_web_is_followed(server):
    server.behaviour.answers = [(302, {"Location": "/elsewhere"})]
    assert fetch(server.url).read_bytes() == CONTENT
    assert [path for path, _ in server.behaviour.requested] == ["/data/captions.json", "/elsewhere"]


def test_a_redirect_from_https_to_http_is_not_followed():
    with pytest.raises(DownloadError, match="redirects to http://b/, which is not followed from https"):
        check_web_redirect("https://a/", "http://b/")
    check_web_redirect("http://a/", "https://b/")


def test_a_redirect_to_itself_ends(server):
    server.behaviour.answers = [(302, {"Location": "/data/captions.json"})] * 50
    with pytest.raises(DownloadError, match="redirects more than 10 times"):
        fetch(server.url)


def test_a_server_that_ignores_if_range_does_not_join_two_versions(server):
    """It continues the new file where the old one broke off, and only the tag tells."""
    interrupted_fetch(server)
    server.behaviour.content, server.behaviour.headers = CONTENT[::-1], {"ETag": '"two"'}
    server.behaviour.ignores_if_range = True
    assert fetch(server.url).read_bytes() == CONTENT[::-1]
    assert ranges_of(server) == [None, "bytes=400000-", None]


def test_a_file_beyond_the_limit_is_refused_before_a_byte_is_written(server, cache):
    with pytest.raises(DownloadError, match=rf"captions\.json: has {len(CONTENT)} bytes, the limit is 1000"):
        fetch(server.url, max_bytes=1000)
    assert files_of(cache) == []


def test_a_stream_without_an_end_stops_at_the_limit(server, cache):
    server.behaviour.tells_length = False
    with pytest.raises(DownloadError, match=r"has more than \d+ bytes, the limit is 300000"):
        fetch(server.url, max_bytes=300_000)
    assert sum(path.stat().st_size for path in cache.rglob("*.part")) <= 300_000


def test_more_than_the_disk_has_room_for_is_refused_before_a_byte_is_written(server, cache):
    server.behaviour.headers = {"ETag": '"one"', "Content-Length": str(1 << 50)}
    with pytest.raises(DownloadError, match=rf"{1 << 50} bytes are to come and \d+ are free"):
        fetch(server.url, max_bytes=1 << 60)
    assert files_of(cache) == []


def test_a_server_that_drips_is_not_waited_for_forever(server, monkeypatch):
    """Each piece comes before the timeout, so that alone would never end it."""
    monkeypatch.setattr(web, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(web, "SLOWEST_BYTES_PER_SECOND", 10_000_000)
    server.behaviour.seconds_between_pieces = 0.05
    with pytest.raises(DownloadError, match=r"only \d+ bytes came in 0 s, in attempt 1"):
        fetch(server.url, timeout_seconds=5, retries=0)


def test_a_name_and_password_in_an_address_are_not_shown(server):
    server.behaviour.answers = [(404, {})]
    with pytest.raises(DownloadError) as caught:
        fetch(server.url.replace("http://", "http://me:secret@"))
    assert "secret" not in str(caught.value)


FETCH = "import sys; from lavis_lite.common.storage.cache import fetch; print(fetch(sys.argv[1]))"


def start_fetch(url: str) -> subprocess.Popen:
    command = [sys.executable, "-c", FETCH, url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once_download_once(server):
    server.behaviour.seconds_between_pieces = 0.05  # one second in all
    processes = [start_fetch(server.url) for _ in range(2)]
    outputs = [process.communicate(timeout=30) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert Path(outputs[0][0].strip()).read_bytes() == CONTENT
    assert len(server.behaviour.requested) == 1


def test_a_killed_download_is_never_taken_for_complete_and_goes_on(server, cache):
    server.behaviour.seconds_between_pieces = 0.1
    process = start_fetch(server.url)
    deadline = time.monotonic() + 20
    while not any(path.stat().st_size for path in cache.rglob("*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert "captions.json" not in files_of(cache)
    server.behaviour.seconds_between_pieces = 0.0
    assert fetch(server.url).read_bytes() == CONTENT
    first, second = ranges_of(server)
    assert first is None
    assert int(second.removeprefix("bytes=").removesuffix("-")) > 0


def test_a_full_disk_is_named_and_what_came_is_kept(server, cache):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, limit[1]))
    try:
        with pytest.raises(DownloadError, match=r"captions\.json\.part: cannot be written .*free some space"):
            fetch(server.url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert fetch(server.url).read_bytes() == CONTENT
    assert len(server.behaviour.requested) == 2


def test_a_cache_that_cannot_be_written_says_how_to_set_another(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DownloadError, match=r"cannot be written .*set LAVIS_LITE_CACHE"):
        fetch(server.url)


def test_nothing_is_shown_where_stderr_is_no_terminal(server):
    process = start_fetch(server.url)
    assert process.communicate(timeout=30)[1] == ""


def test_progress_is_shown_on_a_terminal(server):
    terminal, end = os.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [sys.executable, "-c", FETCH, server.url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=end)
    process.communicate(timeout=30)
    os.close(end)
    assert b"captions.json" in os.read(terminal, 10_000)
    os.close(terminal)
