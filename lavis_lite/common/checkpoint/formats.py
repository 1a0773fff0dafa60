"""Formats of weights: the three that are read, and the names of those that are not."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Literal

TorchFormat = Literal["zip", "legacy", "safetensors"]

# What torch.save wrote before 1.6 begins with: protocol 2, then a number of ten bytes.
_LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_FOREIGN_HEADS = (
    (b"GGUF", "a GGUF file, as llama.cpp reads"),
    (b"\x89HDF\r\n", "an HDF5 file, as Keras writes"),
    (b"version https://git-lfs", "a pointer of Git LFS and not the file itself (run `git lfs pull`)"),
    (b"\x1f\x8b", "compressed with gzip; decompress it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"ustar", "a tar archive; unpack it first"),
)
_FOREIGN_SUFFIXES = {
    ".gguf": "a GGUF file, as llama.cpp reads",
    ".onnx": "an ONNX model",
    ".h5": "an HDF5 file, as Keras writes",
    ".keras": "a model of Keras",
    ".pb": "a graph of TensorFlow",
    ".tflite": "a model of TensorFlow Lite",
    ".index": "part of a TensorFlow checkpoint",
    ".msgpack": "weights of Flax",
    ".npz": "arrays of NumPy",
    ".distcp": "one part of a sharded checkpoint of torch.distributed",
    ".tar": "a tar archive; unpack it first",
    ".json": "a JSON file, not weights",
    ".yaml": "a yaml file, not weights",
}
# Files that tell what a folder is, by glob.
_FOREIGN_FOLDERS = (
    ("adapter_config.json", "an adapter of PEFT (LoRA, say); merge it into its model and save that"),
    (
        ".metadata",
        "a sharded checkpoint of torch.distributed (DCP, FSDP); put it together with "
        "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pth`",
    ),
    ("*.distcp", "a sharded checkpoint of torch.distributed (DCP, FSDP) without its .metadata"),
    (
        "zero_to_fp32.py",
        "a checkpoint of DeepSpeed; put it together with the zero_to_fp32.py that lies in it",
    ),
    ("*_model_states.pt", "a checkpoint of DeepSpeed; put its parts together with zero_to_fp32.py"),
    ("saved_model.pb", "a SavedModel of TensorFlow"),
    ("*.ckpt.index", "a checkpoint of TensorFlow"),
    ("*.index", "a checkpoint of TensorFlow"),
    ("flax_model.msgpack", "weights of Flax"),
    ("*.onnx", "an ONNX model"),
    ("*.gguf", "GGUF files, as llama.cpp reads"),
)


def torch_format(path: Path, head: bytes) -> TorchFormat | None:
    """Return how a file is written, by its first bytes; None for no format that is read here.

    Args:
        head: the first 64 bytes.
    """
    if head.startswith(b"PK"):
        return "zip"
    if head.startswith(_LEGACY_MAGIC):
        return "legacy"
    return "safetensors" if path.suffix == ".safetensors" or head[8:9] == b"{" else None


def other_format(path: Path, head: bytes) -> str | None:
    """Return what a file is that is no checkpoint of torch, or None.

    Args:
        head: the first 64 bytes.
    """
    if head[8:9] != b"{":  # a header of safetensors may begin with any byte
        for beginning, name in _FOREIGN_HEADS:
            if head.startswith(beginning):
                return f"is {name}"
        if re.match(rb"\s*<[!?a-zA-Z]", head):
            return "is a web page and not weights (was a log-in or download page saved in place of the file?)"
    if torch_format(path, head) != "zip":
        name = _FOREIGN_SUFFIXES.get(path.suffix.lower())
        return f"is {name}" if name else None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a damaged archive is for the caller to name
        return None
    if any(name.endswith("/constants.pkl") for name in names):
        return (
            "is a TorchScript archive, which holds code; load it with torch.jit.load and save its state_dict"
        )
    if names and all(name.endswith(".npy") for name in names):
        return "is an archive of NumPy arrays"
    if names and not any(name.endswith(("/data.pkl", "/version", "/byteorder")) for name in names):
        return "is a zip archive that torch.save has not written"
    return None


def other_folder(folder: Path) -> str | None:
    """Return what a folder is that holds weights of another program, or None."""
    for pattern, name in _FOREIGN_FOLDERS:
        if next(folder.glob(pattern), None) is not None:
            return f"is {name}"
    return None
