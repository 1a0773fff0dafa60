"""``lavis-lite shards``: write a data set as tar shards, and inspect shards."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_lite.commands.arguments import add_import_argument, positive_int
from lavis_lite.commands.make_shards import make_shards

if TYPE_CHECKING:
    from lavis_lite.datasets.web.shards import Shard


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite shards make`` and ``lavis-lite shards info``."""
    parser = commands.add_parser("shards", help="write or inspect tar shards", allow_abbrev=False)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="make|info")
    make = kinds.add_parser("make", help="write a data set's images and texts as shards", allow_abbrev=False)
    make.add_argument("name", help="data set")
    make.add_argument("--split", default="train")
    make.add_argument("--output", "-o", required=True, help="folder for the shards, without shards in it")
    make.add_argument("--size", type=positive_int, default=1000, help="samples per shard")
    make.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="of the data set")
    add_import_argument(make)
    make.set_defaults(execute=_execute_make)
    info = kinds.add_parser(
        "info", help="count samples, bytes, unused members and damage", allow_abbrev=False
    )
    info.add_argument("patterns", nargs="+", help="paths, with * and {000..127}, or folders")
    info.add_argument("--write", action="store_true", help="write index.json beside the shards")
    info.set_defaults(execute=_execute_info)


def _execute_make(options: argparse.Namespace) -> int:
    from lavis_lite.commands.datasets import dataset_settings
    from lavis_lite.common.config.user_modules import import_modules

    import_modules(options.imports)
    settings = dataset_settings(options.name, options.options)
    left_out: list[str] = []
    shards = make_shards(
        options.name, settings, options.split, Path(options.output), options.size, left_out.append
    )
    print(f"{len(shards)} shards, {sum(shard['samples'] for shard in shards)} samples in {options.output}")
    if left_out:
        print(f"{len(left_out)} images left out (named above)")
    return 1 if left_out else 0


def _execute_info(options: argparse.Namespace) -> int:
    from lavis_lite.datasets.web.index import write_index

    reports = shard_info(options.patterns, check_counts=not options.write)
    for report in reports:
        members = ", ".join(f"{count} {suffix}" for suffix, count in sorted(report.members.items()))
        print(f"{report.name}  {report.samples} samples  {report.size / 2**20:.1f} MiB  {members}")
        for error in report.errors:
            print(f"  damaged: {error}")
        for line in report.unused:
            print(f"  {line}")
    damaged = sum(bool(report.errors) for report in reports)
    unused = sum(report.losses for report in reports)
    total = sum(report.samples for report in reports)
    print(f"{len(reports)} shards, {total} samples, {damaged} damaged, {unused} members not used")
    if options.write:
        by_folder: dict[Path, dict[str, tuple[int, int]]] = {}
        for report in reports:
            if report.path is not None:
                entry = (report.samples, report.size)
                by_folder.setdefault(report.path.parent, {})[report.path.name] = entry
        for folder, entries in by_folder.items():
            write_index(folder, entries, extend=True)
    return 1 if damaged or unused else 0


@dataclass
class ShardReport:
    """The contents of a shard.

    Attributes:
        name: its path or address.
        path: None if it is not on this machine.
        samples: how many have an image; training counts only these.
        size: bytes of the file; 0 if it is not on this machine.
        members: number of members of samples, by suffix.
        unused: one line for each reason why members are not used.
        losses: number of members that are not used, without folders.
        errors: what is damaged.
    """

    name: str
    path: Path | None
    samples: int = 0
    size: int = 0
    members: Counter[str] = field(default_factory=Counter)
    unused: list[str] = field(default_factory=list)
    losses: int = 0
    errors: list[str] = field(default_factory=list)


def shard_info(patterns: Sequence[str], check_counts: bool = True) -> list[ShardReport]:
    """Read shards from end to end and report on each.

    Args:
        check_counts: report a wrong count in an index as an error of the shard.

    Raises:
        ConfigError: a pattern that names nothing.
    """
    from lavis_lite.datasets.web.shards import list_shards

    return [_report_on(shard, check_counts) for shard in list_shards(patterns)]


def _report_on(shard: Shard, check_counts: bool) -> ShardReport:
    from lavis_lite.datasets.web.samples import UnusedMember, UnusedMembers
    from lavis_lite.datasets.web.shards import SHARD_ERRORS, Damage, error_text, read_shard, require_images

    path = Path(shard.name) if shard.is_local else None
    report = ShardReport(shard.name, path, size=path.stat().st_size if path is not None else 0)
    unused = UnusedMembers()
    try:
        for item in require_images(read_shard(shard)):
            if isinstance(item, Damage):
                report.errors.append(item.text)
            elif isinstance(item, UnusedMember):
                unused.add(item)
                report.losses += item.is_loss
            else:
                report.samples += 1
                report.members.update(key for key in item if not key.startswith("__"))
    except SHARD_ERRORS as error:
        report.errors.append(error_text(shard, error))
    if check_counts and shard.samples not in (None, report.samples):
        report.errors.append(f"holds {report.samples} samples, its index says {shard.samples}")
    report.unused = list(unused.lines())
    return report
