"""Tar shards: making them of a data set, and looking at what is in them."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis_lite.commands.arguments import positive_int


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite shards make`` and ``lavis-lite shards info``."""
    parser = commands.add_parser("shards", help="make tar shards, or look into them", allow_abbrev=False)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="make|info")
    make = kinds.add_parser("make", help="write a data set's images and texts as shards", allow_abbrev=False)
    make.add_argument("name", help="data set")
    make.add_argument("--split", default="train")
    make.add_argument("--output", "-o", required=True, help="folder for the shards")
    make.add_argument("--size", type=positive_int, default=1000, help="samples a shard")
    make.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="of the data set")
    make.set_defaults(execute=_execute_make)
    info = kinds.add_parser("info", help="count samples, bytes and damage", allow_abbrev=False)
    info.add_argument("patterns", nargs="+", help="paths, with * and {000..127}, or folders")
    info.add_argument("--write", action="store_true", help="write index.json beside the shards")
    info.set_defaults(execute=_execute_info)


def _execute_make(options: argparse.Namespace) -> int:
    from lavis_lite.commands.datasets import dataset_settings

    settings = dataset_settings(options.name, options.options)
    shards = make_shards(options.name, settings, options.split, Path(options.output), options.size)
    print(f"{len(shards)} shards, {sum(shard['samples'] for shard in shards)} samples in {options.output}")
    return 0


def _execute_info(options: argparse.Namespace) -> int:
    reports = shard_info(options.patterns)
    for report in reports:
        members = ", ".join(f"{count} {suffix}" for suffix, count in sorted(report.members.items()))
        print(f"{report.path}  {report.samples} samples  {report.size / 2**20:.1f} MiB  {members}")
        for error in report.errors:
            print(f"  damaged: {error}")
    damaged = sum(bool(report.errors) for report in reports)
    total = sum(report.samples for report in reports)
    print(f"{len(reports)} shards, {total} samples, {damaged} damaged")
    if options.write:
        for folder in {report.path.parent for report in reports}:
            own = [report for report in reports if report.path.parent == folder]
            write_index(
                folder,
                [{"name": r.path.name, "samples": r.samples, "bytes": r.size} for r in own],
            )
    return 1 if damaged else 0


def make_shards(
    name: str, settings: Mapping[str, Any], split: str, folder: Path, samples_per_shard: int
) -> list[dict[str, Any]]:
    """Write a split of a data set of image files as shards; return what the index says of each.

    Image bytes are as they are on disk. A sample's json is its annotation, and its txt the caption
    where it has one. A shard is written aside and renamed; what a killed call left is written anew.

    Raises:
        ConfigError: no such split, or a data set without image files.
    """
    from webdataset import TarWriter

    from lavis_lite.common.progress import Progress
    from lavis_lite.common.registry import registry
    from lavis_lite.common.schema import ConfigError

    if samples_per_shard < 1:
        raise ConfigError(f"--size must be at least 1, found {samples_per_shard}.")
    dataset = registry.get_builder_class(name).from_config(settings).build(split)
    if not hasattr(dataset, "annotations") or not hasattr(dataset, "image_root"):
        raise ConfigError(f"{name}: is no data set of image files; shards cannot be made of it.")
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    count = len(dataset.annotations)
    with Progress(count, "write") as progress:
        for start in range(0, count, samples_per_shard):
            path = folder / f"{name}-{split}-{start // samples_per_shard:06d}.tar"
            aside = path.with_suffix(".tmp")
            written = 0
            with aside.open("wb") as stream, TarWriter(stream, mtime=0) as writer:
                for number in range(start, min(start + samples_per_shard, count)):
                    sample = _sample(dataset.annotations[number], dataset.image_root, number)
                    if sample is not None:
                        writer.write(sample)
                        written += 1
                    progress.advance()
            aside.replace(path)
            shards.append({"name": path.name, "samples": written, "bytes": path.stat().st_size})
    write_index(folder, shards)
    return shards


def _sample(annotation: Mapping[str, Any], root: Path, number: int) -> dict[str, Any] | None:
    """Return what a shard holds of an annotation, or None where its image is not there."""
    import logging

    path = root / str(annotation.get("image", ""))
    if not path.is_file():
        logging.getLogger(__name__).warning("left out: %s is not there.", path)
        return None
    suffix = path.suffix.lower().lstrip(".")
    sample: dict[str, Any] = {
        "__key__": f"{number:09d}",
        "jpg" if suffix in ("jpg", "jpeg") else suffix: path.read_bytes(),
        "json": json.dumps(dict(annotation), ensure_ascii=False).encode(),
    }
    caption = annotation.get("caption")
    texts = caption if isinstance(caption, list) else [caption]
    if texts and isinstance(texts[0], str):
        sample["txt"] = texts[0].encode()
    return sample


def write_index(folder: Path, shards: Sequence[Mapping[str, Any]]) -> Path:
    """Write the index that readers take counts from; return its path."""
    from lavis_lite.common.files import write_json
    from lavis_lite.datasets.web.shards import INDEX_FILE

    write_json({"shards": list(shards)}, folder / INDEX_FILE)
    return folder / INDEX_FILE


@dataclass
class ShardReport:
    """What is in a shard: whole samples, members by suffix, and what is wrong with it."""

    path: Path
    samples: int
    size: int
    members: Counter[str]
    errors: list[str] = field(default_factory=list)


def shard_info(patterns: Sequence[str]) -> list[ShardReport]:
    """Read shards from end to end and return what is in each.

    Raises:
        ConfigError: a pattern that names nothing.
    """
    from lavis_lite.datasets.web.shards import list_shards, raw_samples

    reports = []
    for shard in list_shards(patterns):
        path = Path(shard.name)
        report = ShardReport(path, 0, path.stat().st_size, Counter())
        for raw in raw_samples(shard, report.errors.append):
            report.samples += 1
            report.members.update(key for key in raw if not key.startswith("__"))
        reports.append(report)
    return reports
