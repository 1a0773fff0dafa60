"""Writing a data set of image files as tar shards."""

from __future__ import annotations

import io
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lavis_lite.common.config.schema import ConfigError

# Shards are written here until all of them are complete; what a kill leaves goes with the next call.
WORK_FOLDER = ".shards.tmp"
# Pillow's name of a format -> the usual suffix, where they differ.
_SUFFIXES = {"jpeg": "jpg", "jpeg2000": "jp2", "tiff": "tif"}

logger = logging.getLogger(__name__)


class SampleError(ValueError):
    """An annotation that cannot become a sample; the message says why."""


def make_shards(
    name: str,
    settings: Mapping[str, Any],
    split: str,
    folder: Path,
    samples_per_shard: int,
    on_left_out: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Write a split of a data set of image files as shards; return their index entries.

    Image bytes stay as they are. The json of a sample is its annotation, and its txt the caption if it
    has one. The shards appear in the folder when all of them are complete.

    Args:
        on_left_out: called with the reason for each annotation that is left out, which is also logged.

    Raises:
        ConfigError: no such split, a data set without image files, a folder that holds shards, or no
            sample at all.
        LockedError: another process is writing shards into this folder.
    """
    from lavis_lite.common.files import OwnerLock, sync_folder
    from lavis_lite.common.registry import registry
    from lavis_lite.datasets.web.index import write_index

    if samples_per_shard < 1:
        raise ConfigError(f"--size must be at least 1, found {samples_per_shard}.")
    dataset = registry.get_builder_class(name).from_config(settings).build(split)
    if not hasattr(dataset, "annotations") or not hasattr(dataset, "image_root"):
        raise ConfigError(f"{name}: is no data set of image files; shards cannot be made of it.")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; name a folder for the shards.")
    _refuse_shards_in(folder)
    with OwnerLock(folder / ".shards.lock", f"the folder of shards {folder}"):
        work = folder / WORK_FOLDER
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            shards = _write_all(dataset, work, f"{name}-{split}", samples_per_shard, on_left_out)
            _refuse_shards_in(folder)
            for shard in shards:
                (work / shard["name"]).replace(folder / shard["name"])
            write_index(folder, {shard["name"]: (shard["samples"], shard["bytes"]) for shard in shards})
            sync_folder(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return shards


def _refuse_shards_in(folder: Path) -> None:
    """Refuse to mix new shards with others."""
    from lavis_lite.datasets.web.index import INDEX_FILE
    from lavis_lite.datasets.web.patterns import SHARD_SUFFIXES

    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    shards = [name for name in names if name.lower().endswith(SHARD_SUFFIXES) or name == INDEX_FILE]
    if shards:
        raise ConfigError(
            f"{folder}: holds shards ({', '.join(shards[:3])}{', ...' if len(shards) > 3 else ''}), which "
            "would be mixed with the new ones; remove them, or name another folder."
        )


def _write_all(
    dataset: Any,
    folder: Path,
    name: str,
    samples_per_shard: int,
    on_left_out: Callable[[str], None] | None,
) -> list[dict[str, Any]]:
    from webdataset import TarWriter

    from lavis_lite.common.logs.progress import Progress

    shards: list[dict[str, Any]] = []
    left_out: list[str] = []
    count = len(dataset.annotations)
    with Progress(count, "write") as progress:
        for start in range(0, count, samples_per_shard):
            path = folder / f"{name}-{start // samples_per_shard:06d}.tar"
            written = 0
            with path.open("wb") as stream, TarWriter(stream, mtime=0) as writer:
                for number in range(start, min(start + samples_per_shard, count)):
                    try:
                        writer.write(_sample(dataset.annotations[number], Path(dataset.image_root), number))
                        written += 1
                    except SampleError as error:
                        left_out.append(str(error))
                        logger.warning("left out: %s", error)
                    progress.advance()
            if written:
                shards.append({"name": path.name, "samples": written, "bytes": path.stat().st_size})
    if not shards:
        reason = f"; the first reason: {left_out[0]}" if left_out else ""
        raise ConfigError(f"no shard was made: none of {count} annotations has a usable image{reason}")
    if on_left_out is not None:
        for text in left_out:
            on_left_out(text)
    return shards


def _sample(annotation: Mapping[str, Any], root: Path, number: int) -> dict[str, Any]:
    """Return the members of an annotation's sample.

    Raises:
        SampleError: its image is missing, or not of a kind that is read.
    """
    from lavis_lite.common.files import FileError, open_regular
    from lavis_lite.datasets.web.samples import MAX_MEMBER_BYTES

    image = annotation.get("image")
    if not isinstance(image, str) or not image:
        raise SampleError(f"annotation {number}: names no image.")
    path = root / image
    try:
        with open_regular(path) as file:
            content = file.read(MAX_MEMBER_BYTES + 1)
    except (FileError, OSError) as error:
        raise SampleError(str(error)) from error
    if len(content) > MAX_MEMBER_BYTES:
        raise SampleError(f"{path}: has more than {MAX_MEMBER_BYTES >> 20} MiB.")
    sample: dict[str, Any] = {
        "__key__": f"{number:09d}",
        _suffix_of(path, content): content,
        # half a character becomes an escape, which in JSON is the same text
        "json": json.dumps(dict(annotation), ensure_ascii=False).encode(errors="backslashreplace"),
    }
    caption = annotation.get("caption")
    texts = caption if isinstance(caption, list) else [caption]
    if texts and isinstance(texts[0], str):
        sample["txt"] = texts[0].encode()
    return sample


def _suffix_of(path: Path, content: bytes) -> str:
    """Return the suffix of the image member: that of the file, else the one of its format."""
    from lavis_lite.common.media.images import FORMATS, IMAGE_SUFFIXES, format_of

    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "jpg" if suffix == ".jpeg" else suffix.lstrip(".")
    name = format_of(io.BytesIO(content))
    if name is None:
        raise SampleError(f"{path}: is no image that is read here ({', '.join(FORMATS)}); convert it.")
    return _SUFFIXES.get(name.lower(), name.lower())
