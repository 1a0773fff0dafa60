"""``index.json``: how many samples the shards of a folder hold, believed only where it fits the files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import FileError, read_json, write_json

INDEX_FILE = "index.json"
MIN_SAMPLE_BYTES = 512  # a header; gzip makes that about a thousand times smaller at best
_MAX_COMPRESSION = 1032

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexEntry:
    """What an index says of a shard."""

    samples: int
    size: int | None = None


def read_entries(folder: Path) -> dict[str, IndexEntry]:
    """Return what the index of `folder` says, by the name of the shard; nothing without an index.

    Raises:
        ConfigError: the index cannot be used.
    """
    file = folder / INDEX_FILE
    if not file.exists():
        return {}
    try:
        content = read_json(file)
        shards = content["shards"] if isinstance(content, Mapping) else None
        if not isinstance(shards, list):
            raise ValueError("it has no list of shards")
        return dict(map(_entry, shards))
    except (FileError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file}: is not an index of shards ({error}); remove it, or make it again with "
            "`lavis-lite shards info --write`."
        ) from error


def _entry(shard: Any) -> tuple[str, IndexEntry]:
    if not isinstance(shard, Mapping):
        raise ValueError(f"{shard!r:.60} is not an object")
    name, samples, size = shard.get("name"), shard.get("samples"), shard.get("bytes")
    if not isinstance(name, str) or not name or PurePosixPath(name).is_absolute() or ".." in name.split("/"):
        raise ValueError(f"the name {name!r:.60} is not that of a file in this folder")
    if not _is_count(samples) or not (size is None or _is_count(size)):
        raise ValueError(f"{name!r:.60} has {samples!r:.20} samples in {size!r:.20} bytes")
    return name, IndexEntry(samples, size)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def counts_of(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Return how many samples the shards `names` of `folder` hold, where its index can be believed.

    What does not fit (files of another size, files that the index does not list) is logged and not counted.
    """
    entries = read_entries(folder)
    counts, unlisted = {}, []
    for name in names if entries else ():
        entry = entries.get(name)
        if entry is None:
            unlisted.append(name)
        elif error := _error_of(entry, (folder / name).stat().st_size):
            logger.warning("%s: %s; it is counted again.", folder / name, error)
        else:
            counts[name] = entry.samples
    if unlisted:
        logger.warning(
            "%s: %d shards here are not in %s (old ones beside new ones?), and are counted: %s",
            folder,
            len(unlisted),
            INDEX_FILE,
            ", ".join(unlisted[:5]) + (", ..." if len(unlisted) > 5 else ""),
        )
    return counts


def check_index(folder: Path) -> None:
    """Refuse a folder whose index names shards that are not there.

    Raises:
        ConfigError: it does, or the index cannot be used.
    """
    missing = [name for name in read_entries(folder) if not (folder / name).is_file()]
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ConfigError(
            f"{folder / INDEX_FILE}: names {len(missing)} shards that are not there ({names}). Fetch them, "
            f"or make the index again: lavis-lite shards info --write {folder}/*.tar"
        )


def _error_of(entry: IndexEntry, size: int) -> str:
    if entry.size is not None and entry.size != size:
        return f"has {size} bytes, {INDEX_FILE} says {entry.size}"
    if entry.samples * MIN_SAMPLE_BYTES > size * _MAX_COMPRESSION:
        return f"cannot hold the {entry.samples} samples that {INDEX_FILE} says, in {size} bytes"
    return ""


def write_index(folder: Path, shards: Sequence[Mapping[str, Any]]) -> Path:
    """Write the index of a folder; return its path.

    Args:
        shards: "name", "samples" and "bytes" of each.
    """
    write_json({"shards": list(shards)}, folder / INDEX_FILE)
    return folder / INDEX_FILE


def extend_index(folder: Path, shards: Mapping[str, tuple[int, int]]) -> Path:
    """Write the index of a folder with these shards, and with those of its old index that are still there.

    Args:
        shards: name -> samples and bytes.
    """
    try:
        entries = read_entries(folder)
    except ConfigError:
        entries = {}
    others = {name: (one.samples, one.size) for name, one in entries.items() if (folder / name).is_file()}
    rows = sorted({**others, **shards}.items())
    return write_index(folder, [{"name": name, "samples": n, "bytes": size} for name, (n, size) in rows])
