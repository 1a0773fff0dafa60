"""What patterns name: files, addresses, commands with permission, and nothing else, however it is written."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

import pytest
from shards import write_shards

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.datasets.web.patterns import expand_braces
from lavis_lite.datasets.web.shards import Shard, ShardError, list_shards, raw_samples


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_shards(tmp_path / "shards", [3, 2])


def names(*patterns: str) -> list[str]:
    return [Path(shard.name).name for shard in list_shards(patterns)]


# Commands


@pytest.mark.parametrize(
    "pattern",
    [
        "pipe:COMMAND",
        "PIPE:COMMAND",
        " pipe:COMMAND",
        "\tpipe:COMMAND",
        "shards/shard-000.tar::pipe:COMMAND",
        "{pipe:COMMAND,shards/shard-000.tar}",
        "{shards/shard-000.tar,pipe:COMMAND}",
        "p{ip}e:COMMAND::{p,P}ipe:COMMAND",
        "{p}ipe:COMMAND",
        "file:pipe:COMMAND",
        "http:pipe:COMMAND",
        "./pipe:COMMAND",
        "${WDS_COMMAND}",
    ],
)
def test_no_command_runs_without_permission(folder, pattern, monkeypatch):
    monkeypatch.setenv("WDS_COMMAND", "pipe:touch ran")
    with pytest.raises(ConfigError):
        for shard in list_shards([pattern.replace("COMMAND", "touch ran; cat shards/shard-000.tar")]):
            list(raw_samples(shard, print))
    assert not Path("ran").exists()


def test_a_shard_of_someone_elses_making_needs_the_permission_too(folder):
    shard = Shard("pipe:touch ran")
    with pytest.raises(ShardError, match="runs a command, which is not allowed"):
        list(raw_samples(shard, pytest.fail, whole_or_error=True))
    assert not Path("ran").exists()


@pytest.mark.parametrize("pattern", ["*.tar", ".", "pipe:touch ran; cat x.tar"])
@pytest.mark.parametrize("allow_pipe", [False, True])
def test_a_file_that_is_called_like_a_command_is_a_file(folder, pattern, allow_pipe):
    Path("pipe:touch ran; cat x.tar").write_bytes((folder / "shard-000.tar").read_bytes())
    (shard,) = list_shards([pattern], allow_pipe)
    assert shard.is_local and len(list(raw_samples(shard, pytest.fail))) == 3
    assert not Path("ran").exists()


def test_with_permission_braces_and_colons_belong_to_the_command(folder):
    (shard,) = list_shards(
        ["pipe:{ cat shards/shard-000.tar; cat shards/shard-001.tar; }; echo {a,b}::c >&2"], allow_pipe=True
    )
    assert len(list(raw_samples(shard, lambda error: None))) == 5


def test_a_command_that_waits_is_ended_when_nobody_reads_on(folder):
    (shard,) = list_shards(["pipe:cat shards/shard-000.tar; exec sleep 60"], allow_pipe=True)
    samples = raw_samples(shard, pytest.fail)
    assert next(samples)["__key__"] == "000000"
    started = time.monotonic()
    samples.close()
    assert time.monotonic() - started < 30


# Addresses


def test_an_address_of_ip_version_6_is_one_address():
    both = list_shards(["http://[::1]:80/{0..1}.tar::https://[fe80::1%25eth0]/a.tar"])
    assert [one.name for one in both] == [
        "http://[::1]:80/0.tar",
        "http://[::1]:80/1.tar",
        "https://[fe80::1%25eth0]/a.tar",
    ]


def test_addresses_are_expanded_and_known_in_capitals(folder):
    assert [one.name for one in list_shards(["HTTPS://host/{08..10}.tar::http://other/a.tar"])] == [
        "https://host/08.tar",
        "https://host/09.tar",
        "https://host/10.tar",
        "http://other/a.tar",
    ]


@pytest.mark.parametrize(
    "address", ["gs://b/a.tar", "s3://b/a.tar", "hf://b/a.tar", "file:///a.tar", "ftp:a"]
)
def test_other_schemes_are_refused_with_what_to_do(address):
    with pytest.raises(ConfigError, match=r"local paths, http:// and https://.*allow_pipe: true"):
        list_shards([address])


# Files


def test_a_folder_gives_its_shards_gzipped_ones_too_and_no_hidden_files(folder, caplog):
    content = (folder / "shard-000.tar").read_bytes()
    for name in ("a.tar.gz", "b.tgz", "C.TAR", "._shard-000.tar", ".x.tar", "notes.txt", "old.tar.bz2"):
        (folder / name).write_bytes(content)
    assert names(str(folder)) == ["C.TAR", "a.tar.gz", "b.tgz", "shard-000.tar", "shard-001.tar"]
    assert "1 archives are not read: old.tar.bz2" in caplog.text


def test_a_folder_without_shards_says_what_is_there(folder):
    with pytest.raises(ConfigError, match=r"holds no shard .*subfolders write '.*\*\*/\*\.tar'"):
        list_shards(["."])
    Path("zipped").mkdir()
    Path("zipped/a.zip").write_bytes(b"PK")
    with pytest.raises(ConfigError, match=r"It holds a\.zip: unpack or decompress"):
        list_shards(["zipped"])


def test_wildcards_may_stand_in_folders(folder):
    assert names("*/shard-00[01].tar") == names("**/*.tar") == ["shard-000.tar", "shard-001.tar"]


def test_a_path_that_is_there_is_taken_as_it_is(folder):
    content = (folder / "shard-000.tar").read_bytes()
    for name in ("a{1,2}.tar", "b[1].tar", "12:30.tar", "c::d.tar"):
        Path(name).write_bytes(content)
        (shard,) = list_shards([name])
        assert len(list(raw_samples(shard, pytest.fail))) == 3


def test_pipes_devices_and_links_to_nowhere_are_refused_at_once(folder):
    os.mkfifo("a.tar")
    Path("b.tar").symlink_to("/dev/zero")
    Path("c.tar").symlink_to("nowhere")
    for pattern, message in {
        "a.tar": "a.tar is a named pipe, not a file",
        "*.tar": "a.tar is a named pipe, not a file",
        ".": "a.tar is a named pipe, not a file",
        "b.tar": "b.tar is a device, not a file",
        "c.tar": "a link that leads nowhere",
    }.items():
        with pytest.raises(ConfigError, match=message):
            list_shards([pattern])
    errors: list[str] = []
    assert not list(raw_samples(Shard("a.tar"), errors.append))
    assert errors == ["a.tar: is a named pipe, not a file."]


def test_a_mistyped_name_is_told_the_nearest(folder):
    with pytest.raises(
        ConfigError, match=r"names no file: shards/shard_001\.tar\. Did you mean shard-001\.tar"
    ):
        list_shards(["shards/shard_001.tar"])


@pytest.mark.parametrize(
    "pattern", ["", "shards::", "nul\0.tar", "x" * 5000, "~nobody-here/a.tar", "{" * 3000]
)
def test_names_that_cannot_be_are_one_message(folder, pattern):
    with pytest.raises(ConfigError, match="names no file"):
        list_shards([pattern])


# Braces


@pytest.mark.parametrize(
    ("pattern", "expanded"),
    [
        ("a{1..3}b{x,y{1,2}}", "a1bx a1by1 a1by2 a2bx a2by1 a2by2 a3bx a3by1 a3by2"),
        ("{08..10}", "08 09 10"),
        ("{10..1..3}", "10 7 4 1"),
        ("{a..e..2}", "a c e"),
        ("{-2..1}", "-2 -1 0 1"),
        ("{a}{{b,c}}", "{a}{b} {a}{c}"),
        ("{1..2}{", "1{ 2{"),
        ("{a..3}", "{a..3}"),
    ],
)
def test_braces_mean_what_they_mean_in_a_shell(pattern, expanded):
    assert list(expand_braces(pattern)) == expanded.split()


@pytest.mark.parametrize(
    "bomb", ["{0..999999999}.tar", "{a,b}" * 40, "{a,{0..99999999}}", "{{0..9999},{0..9999}}{0..999}"]
)
def test_more_shards_than_there_can_be_are_refused_before_they_are_listed(bomb):
    started = time.monotonic()
    with pytest.raises(ConfigError, match="stands for more than 1,000,000 shards"):
        list_shards([bomb])
    assert time.monotonic() - started < 5


# The index


def write(folder: Path, *shards: dict) -> None:
    (folder / "index.json").write_text(json.dumps({"shards": list(shards)}))


def test_counts_are_believed_where_the_size_fits_and_else_not(folder, caplog):
    size = (folder / "shard-000.tar").stat().st_size
    write(
        folder,
        {"name": "shard-000.tar", "samples": 3, "bytes": size},
        {"name": "shard-001.tar", "samples": 9, "bytes": size + 1},
    )
    with caplog.at_level(logging.WARNING):
        assert [shard.samples for shard in list_shards(["shards"])] == [3, None]
    assert "shard-001.tar: has" in caplog.text and "it is counted again" in caplog.text


def test_a_count_that_the_file_has_no_room_for_is_not_believed(folder, caplog):
    write(folder, {"name": "shard-000.tar", "samples": 10**12}, {"name": "shard-001.tar", "samples": 2})
    assert [shard.samples for shard in list_shards(["shards"])] == [None, 2]
    assert "cannot hold the 1000000000000 samples" in caplog.text


def test_old_shards_beside_new_ones_are_named(folder, caplog):
    write(folder, {"name": "shard-001.tar", "samples": 2})
    assert [shard.samples for shard in list_shards(["shards"])] == [None, 2]
    assert "1 shards here are not in index.json" in caplog.text and "shard-000.tar" in caplog.text


def test_a_folder_whose_index_names_shards_that_are_not_there_is_refused(folder):
    write(folder, {"name": "shard-001.tar", "samples": 2}, {"name": "shard-007.tar", "samples": 2})
    with pytest.raises(ConfigError, match=r"names 1 shards that are not there \(shard-007\.tar\)"):
        list_shards(["shards"])
    assert names("shards/shard-001.tar") == ["shard-001.tar"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"shards": {}}',
        '{"shards": [1]}',
        '{"shards": [{"name": "../../a.tar", "samples": 1}]}',
        '{"shards": [{"name": "/etc/passwd", "samples": 1}]}',
        '{"shards": [{"name": "a.tar", "samples": -1}]}',
        '{"shards": [{"name": "a.tar", "samples": "9"}]}',
        '{"shards": [{"name": "a.tar", "samples": true}]}',
        '{"shards": [{"name": "a.tar", "samples": NaN}]}',
        '{"shards": [{"name": 7, "samples": 1}]}',
    ],
)
def test_an_index_that_cannot_be_used_is_named(folder, content):
    (folder / "index.json").write_text(content)
    with pytest.raises(ConfigError, match=r"index\.json: is not an index of shards"):
        list_shards(["shards"])


def test_names_in_an_index_are_never_opened(folder):
    write(folder, {"name": "pipe:touch ran", "samples": 1}, {"name": "shard-000.tar", "samples": 3})
    assert [shard.samples for shard in list_shards(["shards/*.tar"])] == [3, None]
    assert not Path("ran").exists()
