"""Reading a file of a web server through: all of it, or an error."""

from __future__ import annotations

import io

import pytest
from file_server import CONTENT, running_server

from lavis_lite.common.storage.http import DownloadError, RemoteFile


@pytest.fixture
def server():
    with running_server() as server:
        yield server


def read_through(server, **settings) -> bytes:
    with io.BufferedReader(RemoteFile(server.url, **settings)) as file:
        return file.read()


def test_a_file_is_read_from_its_beginning_to_its_end(server):
    assert read_through(server) == CONTENT
    assert [asked for _, asked in server.behaviour.requested] == [None]


def test_a_connection_that_breaks_off_is_gone_on_with(server):
    server.behaviour.cuts = [300_000, 100_000]
    assert read_through(server) == CONTENT
    assert [asked for _, asked in server.behaviour.requested] == [None, "bytes=300000-", "bytes=400000-"]


def test_a_server_that_gives_whole_files_only_is_asked_again_for_all(server):
    server.behaviour.cuts, server.behaviour.ranges = [300_000], False
    assert read_through(server) == CONTENT


def test_a_server_that_is_busy_is_asked_again(server):
    server.behaviour.answers = [(503, {})]
    assert read_through(server) == CONTENT


def test_a_file_that_is_another_one_by_now_is_refused(server):
    file = io.BufferedReader(RemoteFile(server.url), 1000)
    server.behaviour.cuts = [300_000]
    beginning = file.read(1000)
    server.behaviour.headers = {"ETag": '"two"'}
    with pytest.raises(DownloadError, match="changed while it was being read"):
        file.read()
    assert beginning == CONTENT[:1000]


def test_a_version_that_only_the_content_tells_is_refused(server):
    """The server sends whole files and names no version: the beginning is compared."""
    server.behaviour.ranges, server.behaviour.headers = False, {}
    file = io.BufferedReader(RemoteFile(server.url), 1000)
    server.behaviour.cuts = [300_000]
    file.read(1000)
    server.behaviour.content = CONTENT[::-1]
    with pytest.raises(DownloadError, match="changed while it was being read"):
        file.read()


def test_a_web_page_in_place_of_the_file_is_refused(server):
    server.behaviour.content = b"<!doctype html><title>log in</title>"
    server.behaviour.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(DownloadError, match="a web page in place of the file"):
        read_through(server)


@pytest.mark.parametrize(("answer", "message"), [(404, "answers 404"), (503, "answers 503.*in attempt 1")])
def test_a_file_that_cannot_be_had_is_an_error(server, answer, message):
    server.behaviour.answers = [(answer, {})]
    with pytest.raises(DownloadError, match=message):
        read_through(server, retries=0)
