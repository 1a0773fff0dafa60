"""Formats of weights: the three that can be read, and the names of those that cannot."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Literal

TorchFormat = Literal["zip", "legacy", "safetensors"]

HEAD_BYTES = 64  # enough to tell formats apart
# How files of torch.save before 1.6 begin: pickle protocol 2, then a ten-byte number.
_LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"

_DCP = "a sharded checkpoint of torch.distributed (DCP, FSDP)"
_GGUF, _HDF5 = "a GGUF file (llama.cpp)", "an HDF5 file (Keras)"
_ONNX, _TAR, _FLAX = "an ONNX model", "a tar archive; unpack it first", "weights of Flax"
# First bytes of a file (regular expressions) -> what it is.
_HEADS = {
    rb"GGUF": _GGUF,
    rb"\x89HDF\r\n": _HDF5,
    rb"version https://git-lfs": "a pointer of Git LFS and not the file itself (run `git lfs pull`)",
    rb"\x1f\x8b": "compressed with gzip; decompress it first",
    rb"7z\xbc\xaf": "a 7z archive; unpack it first",
    rb"\x93NUMPY": "a NumPy array",
    rb"ustar": _TAR,
    rb"\s*<[!?a-zA-Z]": "a web page and not weights (was a login page saved in place of the file?)",
}
_SUFFIXES = {
    ".gguf": _GGUF,
    ".onnx": _ONNX,
    ".h5": _HDF5,
    ".keras": "a Keras model",
    ".pb": "a TensorFlow graph",
    ".tflite": "a TensorFlow Lite model",
    ".index": "part of a TensorFlow checkpoint",
    ".msgpack": _FLAX,
    ".npz": "NumPy arrays",
    ".distcp": f"one part of {_DCP}",
    ".tar": _TAR,
    ".json": "a JSON file, not weights",
    ".yaml": "a yaml file, not weights",
}
# Files in a folder (globs) -> what the folder is.
_FOLDERS = {
    "adapter_config.json": "an adapter of PEFT (LoRA, say); merge it into its model and save that",
    ".metadata": f"{_DCP}; convert it with "
    "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pth`",
    "*.distcp": f"{_DCP} without its .metadata",
    "zero_to_fp32.py": "a DeepSpeed checkpoint; convert it with the zero_to_fp32.py in it",
    "*_model_states.pt": "a DeepSpeed checkpoint; convert it with zero_to_fp32.py",
    "saved_model.pb": "a TensorFlow SavedModel",
    "*.index": "a TensorFlow checkpoint",
    "flax_model.msgpack": _FLAX,
    "*.onnx": _ONNX,
    "*.gguf": _GGUF,
}


def torch_format(path: Path, head: bytes) -> TorchFormat | None:
    """Return how a file is written, by its first bytes; None for an unknown format.

    Args:
        head: the first `HEAD_BYTES` bytes.
    """
    if head.startswith(b"PK"):
        return "zip"
    if head.startswith(_LEGACY_MAGIC):
        return "legacy"
    return "safetensors" if path.suffix == ".safetensors" or head[8:9] == b"{" else None


def foreign_format(path: Path, head: bytes) -> str | None:
    """Describe a file that is not a torch checkpoint ("is an ONNX model"), or return None.

    Args:
        head: the first `HEAD_BYTES` bytes.
    """
    if head[8:9] != b"{":  # a safetensors header may begin with any byte
        for pattern, name in _HEADS.items():
            if re.match(pattern, head):
                return f"is {name}"
    if torch_format(path, head) != "zip":
        suffix = path.suffix.lower()
        return f"is {_SUFFIXES[suffix]}" if suffix in _SUFFIXES else None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # the caller names a damaged archive
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
    """Describe a folder with weights of another program ("is a TensorFlow SavedModel"), or return None."""
    for pattern, name in _FOLDERS.items():
        if next(folder.glob(pattern), None) is not None:
            return f"is {name}"
    return None
