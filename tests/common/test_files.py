"""Files are replaced whole, opened only where they are regular, and locked by a process that is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lavis_lite.common.files import (
    FileError,
    LockedError,
    OwnerLock,
    atomic_writer,
    open_regular,
    read_json,
    write_json,
)


def test_a_file_is_replaced_only_when_its_successor_is_whole(tmp_path: Path):
    path = tmp_path / "captions.json"
    path.write_text("before")
    with pytest.raises(KeyError), atomic_writer(path, "w") as file:
        file.write("half")
        raise KeyError
    assert path.read_text() == "before"
    with atomic_writer(path, "w") as file:
        file.write("after")
    assert path.read_text() == "after"
    assert [file.name for file in tmp_path.iterdir()] == ["captions.json"]


def test_a_lone_surrogate_comes_back_from_json(tmp_path: Path):
    write_json({"half an emoji \ud83d": "é"}, tmp_path / "texts.json")
    assert read_json(tmp_path / "texts.json") == {"half an emoji \ud83d": "é"}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "binary", "deep"]
)
def test_what_is_no_json_is_named(tmp_path: Path, content: bytes):
    path = tmp_path / "index.json"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"index\.json: is not valid JSON"):
        read_json(path)


def test_only_regular_files_are_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    for name, kind in (("pipe", "named pipe"), ("device", "device"), ("folder", "folder")):
        with pytest.raises(FileError, match=f"{name}.jpg: is a {kind}, not a file"):
            open_regular(tmp_path / f"{name}.jpg")
    with pytest.raises(FileError, match="there is no such file"):
        open_regular(tmp_path / "none.jpg")


HOLD = """
import sys, time
from lavis_lite.common.files import OwnerLock
with OwnerLock(sys.argv[1], "the folder"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path):
    path = tmp_path / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LockedError, match=rf"the folder is in use by process {holder.pid} on "):
        OwnerLock(path, "the folder").acquire()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with OwnerLock(path, "the folder") as lock:
        assert json.loads(path.with_name(".lock.holder").read_text())["pid"] == os.getpid()
        assert f"process {os.getpid()} on" in lock.holder()
    assert not path.with_name(".lock.holder").exists()
