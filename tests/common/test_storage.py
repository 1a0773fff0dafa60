"""The cache folder, checksums, local files and handlers, with downloads from a real server."""

import hashlib
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from file_server import CONTENT, running_server
from iopath.common.file_io import PathHandler

from lavis_lite.common.storage.cache import (
    AddressError,
    ChecksumError,
    cache_root,
    fetch,
    path_manager,
    resolve,
)

MD5, SHA256 = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()


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


def test_the_environment_variable_decides_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("LAVIS_LITE_CACHE", "~/somewhere")
    assert cache_root() == Path.home() / "somewhere"


@pytest.mark.parametrize(
    ("platform", "variable", "value", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "/var/cache/me", "/var/cache/me/lavis_lite"),
        ("linux", "XDG_CACHE_HOME", "relative", "~/.cache/lavis_lite"),
        ("linux", "XDG_CACHE_HOME", "", "~/.cache/lavis_lite"),
        ("darwin", "XDG_CACHE_HOME", "", "~/Library/Caches/lavis_lite"),
        ("win32", "LOCALAPPDATA", "/users/me/local", "/users/me/local/lavis_lite/Cache"),
    ],
)
def test_otherwise_it_is_in_the_users_cache_folder(monkeypatch, platform, variable, value, expected):
    monkeypatch.delenv("LAVIS_LITE_CACHE")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable, value)
    assert cache_root() == Path(expected).expanduser()


def test_a_relative_storage_path_lies_below_the_cache_or_the_given_root(cache, tmp_path):
    assert resolve("coco/images") == cache / "coco" / "images"
    assert resolve("coco/images", tmp_path) == tmp_path / "coco" / "images"


def test_an_absolute_storage_path_is_kept(tmp_path):
    assert resolve(str(tmp_path / "images")) == tmp_path / "images"
    assert resolve("~/images", tmp_path) == Path.home() / "images"
    assert resolve(f"file://{tmp_path}/my%20images") == tmp_path / "my images"


def test_an_address_is_no_storage_path():
    with pytest.raises(AddressError, match=r"https://example\.org/x: is not a place on this"):
        resolve("https://example.org/x")


def test_a_download_has_its_content_and_its_name(server, cache):
    path = fetch(server.url)
    assert path.read_bytes() == CONTENT
    assert path.name == "captions.json"
    assert cache / "downloads" in path.parents
    assert files_of(cache) == ["captions.json", "captions.json.sha256"]


def test_a_second_call_asks_the_server_nothing(server):
    first = fetch(server.url)
    assert fetch(server.url, md5=MD5, sha256=SHA256) == first
    assert len(server.behaviour.requested) == 1


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_the_record_is_one_that_sha256sum_checks(server):
    path = fetch(server.url)
    command = ["sha256sum", "--check", "--strict", path.name + ".sha256"]
    assert subprocess.run(command, cwd=path.parent, capture_output=True).returncode == 0


def test_addresses_that_end_alike_do_not_meet(server):
    first = fetch(server.url + "?part=1")
    server.behaviour.content = b"other"
    second = fetch(server.url + "?part=2")
    assert first.name == second.name == "captions.json"
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, b"other")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b%20c.pth", "b_c.pth"),
        ("/a/..%2F..%2Fevil", "evil"),
        ("/a/été.json", "_t_.json"),
        ("/a/.hidden", "hidden"),
        ("/a/", "download"),
        ("/" + "x" * 300 + ".tar", "x" * 116 + ".tar"),
    ],
)
def test_file_names_are_made_safe(server, cache, path, name):
    fetched = fetch(server.url.replace("/data/captions.json", path))
    assert fetched.name == name
    assert fetched.parent.parent == cache / "downloads"


def test_a_destination_is_where_the_file_goes(server, tmp_path, cache):
    wanted = tmp_path / "coco" / "annotations" / "train.json"
    assert fetch(server.url, destination=wanted) == wanted
    assert wanted.read_bytes() == CONTENT
    assert not cache.exists()


@pytest.mark.parametrize("checksum", [{"md5": MD5}, {"sha256": SHA256.upper()}])
def test_the_right_checksum_is_accepted(server, checksum):
    assert fetch(server.url, **checksum).read_bytes() == CONTENT


@pytest.mark.parametrize("checksum", [{"md5": "0" * 32}, {"sha256": "0" * 64}])
def test_a_wrong_checksum_is_refused_and_the_file_not_kept(server, cache, checksum):
    with pytest.raises(ChecksumError) as caught:
        fetch(server.url, **checksum)
    (kind, expected), right = *checksum.items(), MD5 if "md5" in checksum else SHA256
    assert f"{server.url}: its {kind} is {right}, expected {expected}" in str(caught.value)
    assert "local copy" in str(caught.value)
    assert files_of(cache) == []


def test_a_checksum_that_is_none_is_refused_before_any_request(server):
    with pytest.raises(ValueError, match="md5 must be 32 hexadecimal digits, found 'abc'"):
        fetch(server.url, md5="abc")
    assert server.behaviour.requested == []


def test_another_expected_checksum_downloads_again(server):
    path = fetch(server.url)
    server.behaviour.content = b"version two"
    assert fetch(server.url, sha256=hashlib.sha256(b"version two").hexdigest()) == path
    assert path.read_bytes() == b"version two"


def test_a_download_that_lost_bytes_since_is_fetched_again(server, caplog):
    path = fetch(server.url)
    with path.open("r+b") as file:
        file.truncate(1000)
    with caplog.at_level(logging.WARNING):
        assert fetch(server.url).read_bytes() == CONTENT
    assert f"{path} has 1000 bytes in place of {len(CONTENT)}" in caplog.text


def test_another_address_for_a_destination_downloads_again_unless_a_checksum_says_it_is_the_same(
    server, tmp_path
):
    wanted = tmp_path / "train.json"
    fetch(server.url, destination=wanted)
    server.behaviour.content = b"other"
    assert fetch(server.url + "?mirror", destination=wanted, md5=MD5).read_bytes() == CONTENT
    assert fetch(server.url + "?v=2", destination=wanted).read_bytes() == b"other"


def test_the_users_own_file_is_taken_but_never_replaced(server, tmp_path):
    own = tmp_path / "own.json"
    own.write_bytes(b"mine")
    assert fetch(server.url, destination=own) == own
    assert fetch(server.url, destination=own, md5=hashlib.md5(b"mine").hexdigest()) == own
    with pytest.raises(ChecksumError, match=r"own\.json: its md5 is .* It is not the expected file"):
        fetch(server.url, destination=own, md5=MD5)
    assert own.read_bytes() == b"mine"
    assert server.behaviour.requested == []


def test_a_local_file_is_returned_as_it_is(tmp_path):
    path = tmp_path / "own file.bin"
    path.write_bytes(CONTENT)
    assert fetch(path) == fetch(str(path)) == fetch(f"file://{tmp_path}/own%20file.bin") == path
    assert fetch(str(path), md5=MD5, sha256=SHA256) == path
    assert files_of(tmp_path) == ["own file.bin"]


def test_a_local_file_below_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model.pth").touch()
    assert fetch("~/model.pth") == tmp_path / "model.pth"


def test_a_missing_local_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth: there is no such file"):
        fetch(tmp_path / "nothing.pth")


def test_a_local_file_with_another_checksum_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"other")
    with pytest.raises(ChecksumError, match=rf"model\.pth: its sha256 is .*, expected {SHA256}"):
        fetch(path, sha256=SHA256)
    assert path.exists()


FOREIGN = ["ftp://host/x", "s3://bucket/x", "gs://bucket/x", "FTP://host/x", "file://host/share/x"]


@pytest.mark.parametrize("url", FOREIGN)
def test_other_schemes_are_refused(url):
    with pytest.raises(AddressError, match=re.escape(url)):
        fetch(url)


class ArchiveHandler(PathHandler):
    """Addresses of a store of a person's own: ``archive://name`` is a file of a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def _get_supported_prefixes(self) -> list[str]:
        return ["archive://"]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: object) -> str:
        return str(self.folder / path.removeprefix("archive://"))


def test_a_registered_handler_adds_a_kind_of_address(tmp_path):
    (tmp_path / "model.pth").write_bytes(CONTENT)
    with pytest.raises(AddressError, match=r"register an iopath handler with .*path_manager"):
        fetch("archive://model.pth")
    path_manager().register_handler(ArchiveHandler(tmp_path))
    assert fetch("archive://model.pth", sha256=SHA256) == tmp_path / "model.pth"
    with pytest.raises(FileNotFoundError, match=r"none\.pth: there is no such file"):
        fetch("archive://none.pth")


@pytest.mark.parametrize("url", ["http://", "http://[x/", "http://127.0.0.1:port/x"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(AddressError, match="is not a valid address"):
        fetch(url)
