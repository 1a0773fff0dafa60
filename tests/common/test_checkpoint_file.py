"""One checkpoint file: damaged ones, other programs' ones and hostile ones are each named, none is loaded."""

from __future__ import annotations

import io
import os
import resource
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lavis_lite.common.checkpoint.file import CheckpointError, load_file, save_atomically

CONTENT = {"model": {"a": torch.arange(500.0), "b": torch.ones(3, dtype=torch.half)}, "step": 4}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.save(CONTENT, tmp_path / "checkpoint.pth")
    return tmp_path / "checkpoint.pth"


def at_directory(content: bytearray, offset: int) -> int:
    """Return where byte `offset` of the zip directory's first entry lies."""
    end = content.rfind(b"PK\5\6")
    return int.from_bytes(content[end + 16 : end + 20], "little") + offset


# byte of a directory entry -> what it says there
DIRECTORY_BYTES = {"flags": 8, "method": 10, "checksum": 16, "size": 24, "name": 46, "offset": 42}


@pytest.mark.parametrize("field", DIRECTORY_BYTES)
@pytest.mark.parametrize("mask", [0x01, 0x08, 0x80])
def test_a_changed_zip_directory_is_one_error_or_changes_nothing(path, field, mask):
    content = bytearray(path.read_bytes())
    content[at_directory(content, DIRECTORY_BYTES[field])] ^= mask
    path.write_bytes(content)
    try:
        assert torch.equal(load_file(path)["model"]["a"], CONTENT["model"]["a"])
    except CheckpointError as error:
        assert str(path) in str(error)


def test_a_flipped_bit_in_a_weight_is_seen(path):
    content = bytearray(path.read_bytes())
    content[content.find(torch.arange(500.0).numpy().tobytes()) + 900] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"the file is damaged \(member .*/data/0\)"):
        load_file(path)


@pytest.mark.parametrize("length", [0, 1, 3, 100, -1, -30])
def test_a_cut_file_is_damaged(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="the file is damaged"):
        load_file(path)


def rewritten(path: Path, change: Callable[[str, bytes], bytes], method: int = zipfile.ZIP_STORED) -> None:
    """Write the zip at `path` again, with valid checksums."""
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as old, zipfile.ZipFile(path, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


def test_a_compressed_member_is_refused_before_it_is_unpacked(path):
    rewritten(
        path, lambda name, data: bytes(1 << 26) if name.endswith("data/0") else data, zipfile.ZIP_DEFLATED
    )
    with pytest.raises(CheckpointError, match="compressed members"):
        load_file(path)


def test_a_tensor_that_claims_more_than_the_file_is_refused(tmp_path):
    huge = torch.zeros(1).expand(1 << 40)
    torch.save({"model": {"visual_encoder.pos_embed": huge}}, tmp_path / "bomb.pth")
    with pytest.raises(CheckpointError, match=r"pos_embed has the shape \(1099511627776,\)"):
        load_file(tmp_path / "bomb.pth")


def test_a_storage_that_claims_more_than_its_member_is_refused(path):
    numbers = (500).to_bytes(2, "little"), (60000).to_bytes(2, "little")
    rewritten(path, lambda name, data: data.replace(b"M" + numbers[0], b"M" + numbers[1]))
    with pytest.raises(CheckpointError, match="the file is damaged"):
        load_file(path)


def test_a_list_that_contains_itself_is_read(tmp_path):
    endless: list = [torch.ones(2)]
    endless.append(endless)
    torch.save({"state": endless}, tmp_path / "loop.pth")
    assert load_file(tmp_path / "loop.pth")["state"][1][1][0].tolist() == [1, 1]


class Payload:
    def __reduce__(self):
        return print, ("code ran",)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_that_would_run_code_names_what_it_asks_for(tmp_path, new_format, capsys):
    torch.save({"model": Payload()}, tmp_path / "evil.pth", _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"\(print\); loading it could run somebody's code"):
        load_file(tmp_path / "evil.pth")
    assert "code ran" not in capsys.readouterr().out


FOREIGN = {
    "page.pth": (b"\n<!DOCTYPE html><html>", "is a web page"),
    "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
    "model.gguf": (b"GGUF\x03" + bytes(40), "GGUF"),
    "model.onnx": (b"\x08\x07\x12\x07pytorch", "ONNX"),
    "model.h5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
    "model.msgpack": (b"\x85\xa5model", "Flax"),
    "saved_model.pb": (b"\x08\x01\x12", "TensorFlow"),
    "weights.pth": (b"\x1f\x8b\x08", "gzip"),
    "__0_0.distcp": (b"\x80\x02", "sharded checkpoint"),
    "text.pth": (b"hello world", "damaged or not a checkpoint"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_programs_are_called_by_their_name(tmp_path, name):
    (tmp_path / name).write_bytes(FOREIGN[name][0])
    with pytest.raises(CheckpointError, match=FOREIGN[name][1]):
        load_file(tmp_path / name)


def test_a_torchscript_archive_is_called_by_its_name(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "scripted.pth"))
    with pytest.raises(CheckpointError, match="TorchScript"):
        load_file(tmp_path / "scripted.pth")


def test_the_content_says_the_format_whatever_the_suffix(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "weights.bin")
    torch.save({"a": torch.ones(2)}, tmp_path / "weights.safetensors")
    for name in ("weights.bin", "weights.safetensors"):
        assert load_file(tmp_path / name)["a"].tolist() == [1, 1]


@pytest.mark.parametrize("header", [b"\xff" * 8, (1 << 40).to_bytes(8, "little"), bytes(8)])
def test_a_safetensors_header_of_an_impossible_length_is_refused(tmp_path, header):
    save_file({"a": torch.ones(2)}, tmp_path / "weights.safetensors")
    content = (tmp_path / "weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(header + content[8:])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_file(tmp_path / "weights.safetensors")


def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(CheckpointError, match="is a named pipe"):
        load_file(tmp_path / "pipe.pth")
    with pytest.raises(CheckpointError, match="there is no such file"):
        load_file(tmp_path / "nothing.pth")


def test_a_write_that_the_system_refuses_leaves_the_old_file_and_says_why(path):
    old, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot be written .*File too large"):
            save_atomically({"model": {"a": torch.zeros(100_000)}}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == old
    assert [file.name for file in path.parent.iterdir()] == [path.name]
