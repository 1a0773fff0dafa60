"""Fetching what a data set's config has addresses for, and saying what must be fetched by hand."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite download``."""
    parser = commands.add_parser("download", help="fetch a data set's files", allow_abbrev=False)
    parser.add_argument("names", nargs="+", metavar="NAME", help="data sets")
    parser.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="of the data set")
    parser.set_defaults(execute=_execute)


@dataclass
class Fetched:
    """What became of a data set's files.

    Attributes:
        files: those that are here now.
        by_hand: what to put where, in sentences.
        failures: address and reason of each that could not be had.
    """

    files: list[Path] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def _execute(options: argparse.Namespace) -> int:
    failed = 0
    for name in options.names:
        fetched = download(name, options.options)
        failed += len(fetched.failures)
        for path in fetched.files:
            print(f"{name}: {path}")
        for failure in fetched.failures:
            print(f"{name}: could not be fetched: {failure}")
        for sentence in fetched.by_hand:
            print(f"{name}: by hand: {sentence}")
        if not (fetched.files or fetched.by_hand or fetched.failures):
            print(f"{name}: needs no download")
    return 1 if failed else 0


def download(name: str, options: Sequence[str] = ()) -> Fetched:
    """Fetch every annotation file of a data set that has an address, checked by its md5 where one is known.

    Files that are here are left alone; a download that was cut off goes on.

    Raises:
        UnknownNameError: no such data set.
    """
    from lavis_lite.commands.datasets import dataset_settings
    from lavis_lite.common.logs.progress import Progress
    from lavis_lite.common.storage.cache import fetch, resolve

    build_info = dataset_settings(name, options).get("build_info") or {}
    fetched = Fetched()
    wanted = list(dict.fromkeys(_annotation_files(build_info.get("annotations") or {})))
    with Progress(len(wanted), f"download {name}") as progress:
        for storage, url, md5 in wanted:
            place = resolve(storage) if storage else None
            if place is not None and place.is_file():
                fetched.files.append(place)
            elif url is None:
                fetched.by_hand.append(f"put the annotations at {place}.")
            else:
                try:
                    fetched.files.append(fetch(url, destination=place, md5=md5))
                except OSError as error:
                    fetched.failures.append(str(error) if url in str(error) else f"{url}: {error}")
            progress.advance()
    images = (build_info.get("images") or {}).get("storage")
    if images and not resolve(images).is_dir():
        fetched.by_hand.append(f"put the images into {resolve(images)}. {_advice(name)}".strip())
    return fetched


def _annotation_files(annotations: dict[str, Any]) -> list[tuple[str | None, str | None, str | None]]:
    """Return (storage, url, md5) of each file of each split."""
    files = []
    for info in annotations.values():
        columns = [_listed(info.get(key)) for key in ("storage", "url", "md5")]
        for index in range(max(map(len, columns))):
            files.append(tuple(column[index] if index < len(column) else None for column in columns))
    return files


def _listed(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def _advice(name: str) -> str:
    """Return the comment at the head of the data set's default yaml."""
    from lavis_lite.common.config.layering import default_path

    path = default_path("datasets", name)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    comment = [line.lstrip("# ") for line in lines if line.startswith("#")]
    return " ".join(comment)
