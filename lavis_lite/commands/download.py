"""Downloading a data set's annotations, and naming the files that must be put in place by hand."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite download``."""
    parser = commands.add_parser("download", help="download a data set's files", allow_abbrev=False)
    parser.add_argument("names", nargs="+", metavar="NAME", help="data sets")
    parser.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="of the data set")
    parser.set_defaults(execute=_execute)


@dataclass
class Downloads:
    """The files of a data set.

    Attributes:
        files: those that are on this machine now.
        by_hand: sentences about what to put where.
        failures: address and reason of each failed download.
    """

    files: list[Path] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def _execute(options: argparse.Namespace) -> int:
    failed = False
    for name in options.names:
        downloads = download(name, options.options)
        failed |= bool(downloads.failures)
        lines = [
            *map(str, downloads.files),
            *(f"could not be downloaded: {failure}" for failure in downloads.failures),
            *(f"by hand: {sentence}" for sentence in downloads.by_hand),
        ]
        for line in lines or ["needs no download"]:
            print(f"{name}: {line}")
    return int(failed)


def download(name: str, options: Sequence[str] = ()) -> Downloads:
    """Download every annotation file of a data set that has an address, checked by its MD5 if one is known.

    Existing files stay as they are; an interrupted download is resumed.

    Raises:
        UnknownNameError: no such data set.
    """
    from lavis_lite.commands.datasets import dataset_settings
    from lavis_lite.common.logs.progress import Progress
    from lavis_lite.common.storage.cache import fetch, resolve

    build_info = dataset_settings(name, options).get("build_info") or {}
    downloads = Downloads()
    annotations = _annotation_files(build_info.get("annotations") or {})
    with Progress(len(annotations), f"download {name}") as progress:
        for storage, url, md5 in annotations:
            path = resolve(storage) if storage else None
            if path is not None and path.is_file():
                downloads.files.append(path)
            elif url is None:
                downloads.by_hand.append(f"put the annotations at {path}.")
            else:
                try:
                    downloads.files.append(fetch(url, destination=path, md5=md5))
                except OSError as error:
                    downloads.failures.append(str(error) if url in str(error) else f"{url}: {error}")
            progress.advance()
    images = (build_info.get("images") or {}).get("storage")
    if images and not resolve(images).is_dir():
        downloads.by_hand.append(f"put the images into {resolve(images)}. {_comment_of(name)}".strip())
    return downloads


def _annotation_files(
    annotations: Mapping[str, Mapping[str, Any]],
) -> list[tuple[str | None, str | None, str | None]]:
    """Return (storage, url, md5) of each file of each split, without duplicates."""
    files: list[tuple[str | None, str | None, str | None]] = []
    for info in annotations.values():
        storages, urls, md5s = (_as_list(info.get(key)) for key in ("storage", "url", "md5"))
        files += zip_longest(storages, urls, md5s)
    return list(dict.fromkeys(files))


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def _comment_of(name: str) -> str:
    """Return the comments of the data set's default yaml."""
    from lavis_lite.common.config.layering import default_path

    path = default_path("datasets", name)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
