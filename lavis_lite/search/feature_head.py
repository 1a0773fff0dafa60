"""``index.json`` of a feature store: what its features are of, and how much of its other files counts."""

from __future__ import annotations

import dataclasses
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lavis_lite.common.files import FileError, read_json, write_json

HEAD_FILE = "index.json"
VERSION = 2
TYPES: dict[str, np.dtype[Any]] = {".f32": np.dtype("<f4"), ".f16": np.dtype("<f2")}
_FEATURE_NAME = re.compile(r"[A-Za-z0-9_]+\.(f32|f16)")
_LOG_NAME = re.compile(r"files(\.\d+)?\.jsonl")
_LARGEST_FILE = 1 << 20  # bytes of index.json
_LARGEST_ROW = 1 << 30  # bytes of one feature of one file
_REBUILD = "remove the folder and add the images again, or name another folder."


class FeatureStoreError(ValueError):
    """Features that do not belong to the model, or are damaged; the message says which and why."""


@dataclass(frozen=True)
class Head:
    """Content of ``index.json``; replaced after everything that it counts is on disk.

    Attributes:
        about: what the features are of; stores with other values do not mix.
        source: how to load the model that made them.
        features: shape of a row of each feature, by the name of its file.
        folder: where the store was when this was written.
        log: name of the file with one line per file.
        lines: how many lines of it count.
        log_bytes: their length.
        rows: how many rows of each feature count.
    """

    about: dict[str, Any]
    source: dict[str, Any]
    features: dict[str, list[int]]
    folder: str
    log: str = "files.jsonl"
    lines: int = 0
    log_bytes: int = 0
    rows: int = 0
    version: int = field(default=VERSION, init=False)

    def width(self, name: str) -> int:
        """Return the bytes of a row of a feature."""
        return int(np.prod(self.features[name], dtype=np.int64)) * TYPES[Path(name).suffix].itemsize

    def write(self, folder: Path) -> None:
        """Write index.json with a checksum."""
        content = dataclasses.asdict(self)
        write_json({**content, "crc": _checksum(content)}, folder / HEAD_FILE)

    def next_log(self) -> str:
        """Return the name of the log that replaces this one."""
        number = re.search(r"\d+", self.log)
        return f"files.{int(number[0]) + 1 if number else 2}.jsonl"


def read_head(folder: Path) -> Head | None:
    """Return the content of the ``index.json`` of `folder`, or None if there is none.

    Raises:
        FeatureStoreError: it is damaged, of another version, or not of a feature store.
    """
    path = folder / HEAD_FILE
    if not path.exists():
        return None
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise FileError(f"{path}: has {path.stat().st_size} bytes.")
        content = read_json(path)
    except FileError as error:
        raise FeatureStoreError(f"{error} The index cannot be used; {_REBUILD}") from error
    if not isinstance(content, dict):
        raise FeatureStoreError(f"{path}: is not of an image index; {_REBUILD}")
    checksum, version = content.pop("crc", None), content.get("version")
    if version is None and {"weights", "features"} <= content.keys():
        raise FeatureStoreError(
            f"{folder}: this index was made by an earlier version of lavis-lite, which could not detect "
            f"damage; {_REBUILD}"
        )
    if checksum != _checksum(content):
        raise FeatureStoreError(f"{path}: is damaged, or not of an image index; {_REBUILD}")
    if content.pop("version", None) != VERSION:
        raise FeatureStoreError(f"{folder}: this index was made by another version of lavis-lite; {_REBUILD}")
    try:
        head = Head(**content)
        _check(head)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise FeatureStoreError(f"{path}: is not of an image index ({error}); {_REBUILD}") from error
    return head


def _checksum(content: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def _check(head: Head) -> None:
    """Raise ValueError for values that `Head.write` never writes, such as files outside the folder."""
    if not _LOG_NAME.fullmatch(head.log) or not all(map(_FEATURE_NAME.fullmatch, head.features)):
        raise ValueError("it names a file of another kind")
    for name, shape in head.features.items():
        sizes_fit = all(isinstance(size, int) and 0 < size <= _LARGEST_ROW for size in shape)
        if not sizes_fit or not 0 < head.width(name) <= _LARGEST_ROW:
            raise ValueError(f"{name} has the shape {shape}")
    counts = (head.lines, head.log_bytes, head.rows)
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError("a count is not a natural number")
    types = (isinstance(head.about, dict), isinstance(head.source, dict), isinstance(head.folder, str))
    if not all(types):
        raise ValueError("about, source or folder has another type")
