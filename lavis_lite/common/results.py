"""The metrics of a run by split, and what made them: ``evaluate.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_lite.common.files import FileError, read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

# The one key of evaluate.json that is not a split.
MADE_WITH = "made_with"


def read_results(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the metrics by split, and what made them (empty where the file does not say).

    Raises:
        FileError: there is no such file, or it holds no metrics by split.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
        raise FileError(f"{path}: expected metrics by split, {{split: {{metric: value}}}}.")
    made_with = content.pop(MADE_WITH, {})
    return content, made_with


def write_results(path: Path, metrics: Mapping[str, Any], made_with: Mapping[str, Any]) -> None:
    """Write the metrics by split, and what made them."""
    write_json({**metrics, MADE_WITH: made_with}, path)


def state_dict_digest(state_dict: Mapping[str, Tensor]) -> str:
    """Return a digest of weights, which depends on their names, types, shapes and bits alone."""
    import torch  # what only reads results does without

    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in state_dict.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"blake2b:{digest.hexdigest()}"


def settings_digest(settings: Any) -> str:
    """Return a digest of plain values, which does not depend on the order of keys."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return f"blake2b:{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def library_version() -> str:
    """Return the version of this library."""
    try:
        return version("lavis-lite")
    except PackageNotFoundError:  # run from a copy that was not installed
        return "not installed"
