"""``index.json``: the sample counts of the shards in a folder, used only if they fit the files."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeGuard

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import FileError, read_json, write_json

INDEX_FILE = "index.json"
MIN_SAMPLE_BYTES = 512  # a header; gzip makes it about a thousand times smaller at best
_MAX_COMPRESSION = 1032

logger = logging.getLogger(__name__)


class IndexEntry(NamedTuple):
    """Entry of a shard in an index; `size` in bytes."""

    samples: int
    size: int | None = None


def read_index(folder: Path) -> dict[str, IndexEntry]:
    """Return name -> entry of the index of `folder`; nothing without an index.

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
            f"{file}: is not an index of shards ({error}); remove it, or write it again with "
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


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def counts_of(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """Return how many samples the shards `names` of `folder` hold, where its index is credible.

    Entries that do not fit their files, and files without an entry, are logged and left out.
    """
    entries = read_index(folder)
    counts, unlisted = {}, []
    for name in names if entries else ():
        entry = entries.get(name)
        if entry is None:
            unlisted.append(name)
            continue
        size = (folder / name).stat().st_size
        if entry.size is not None and entry.size != size:
            error = f"has {size} bytes, {INDEX_FILE} says {entry.size}"
        elif entry.samples * MIN_SAMPLE_BYTES > size * _MAX_COMPRESSION:
            error = f"cannot hold the {entry.samples} samples that {INDEX_FILE} says, in {size} bytes"
        else:
            counts[name] = entry.samples
            continue
        logger.warning("%s: %s; it is counted again.", folder / name, error)
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
    """Refuse a folder whose index names missing shards.

    Raises:
        ConfigError: it does, or the index cannot be used.
    """
    missing = [name for name in read_index(folder) if not (folder / name).is_file()]
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ConfigError(
            f"{folder / INDEX_FILE}: names {len(missing)} shards that are not there ({names}). Fetch them, "
            f"or write the index again: lavis-lite shards info --write {folder}/*.tar"
        )


def write_index(folder: Path, shards: Mapping[str, tuple[int, int]], extend: bool = False) -> None:
    """Write the index of a folder.

    Args:
        shards: name -> samples and bytes.
        extend: keep the entries of the old index whose files still exist.
    """
    entries: dict[str, tuple[int, int | None]] = {}
    if extend:
        with contextlib.suppress(ConfigError):  # an unusable index is replaced
            entries = {name: e for name, e in read_index(folder).items() if (folder / name).is_file()}
    rows = sorted({**entries, **shards}.items())
    content = [{"name": name, "samples": samples, "bytes": size} for name, (samples, size) in rows]
    write_json({"shards": content}, folder / INDEX_FILE)
