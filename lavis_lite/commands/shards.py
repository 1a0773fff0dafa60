"""Tar shards: making them of a data set, and looking at what is in them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis_lite.commands.arguments import positive_int
from lavis_lite.commands.make_shards import make_shards
from lavis_lite.commands.user_code import add_import_argument


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite shards make`` and ``lavis-lite shards info``."""
    parser = commands.add_parser("shards", help="make tar shards, or look into them", allow_abbrev=False)
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="make|info")
    make = kinds.add_parser("make", help="write a data set's images and texts as shards", allow_abbrev=False)
    make.add_argument("name", help="data set")
    make.add_argument("--split", default="train")
    make.add_argument("--output", "-o", required=True, help="folder for the shards; it must hold none")
    make.add_argument("--size", type=positive_int, default=1000, help="samples a shard")
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
    from lavis_lite.datasets.web.index import extend_index

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
        for folder in {report.path.parent for report in reports if report.path is not None}:
            own = [report for report in reports if report.path is not None and report.path.parent == folder]
            extend_index(folder, {r.path.name: (r.samples, r.size) for r in own if r.path is not None})
    return 1 if damaged or unused else 0


@dataclass
class ShardReport:
    """What is in a shard.

    Attributes:
        name: its path or address.
        path: None where it is not on this machine.
        samples: those that have an image, as training counts them.
        size: bytes of the file; 0 where it is not on this machine.
        members: how many members of samples there are, by suffix.
        unused: one line for each reason why members are not used.
        losses: how many members are not used, folders left out.
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
    """Read shards from end to end and return what is in each.

    Args:
        check_counts: whether a wrong count in an index is an error of the shard.

    Raises:
        ConfigError: a pattern that names nothing.
    """
    from lavis_lite.datasets.web.shards import list_shards

    return [_report_on(shard, check_counts) for shard in list_shards(patterns)]


def _report_on(shard: Any, check_counts: bool) -> ShardReport:
    from lavis_lite.datasets.web.samples import UnusedMember, UnusedMembers, has_image, without_image
    from lavis_lite.datasets.web.shards import SHARD_ERRORS, Damage, error_text, read_shard

    path = Path(shard.name) if shard.is_local else None
    report = ShardReport(shard.name, path, size=path.stat().st_size if path is not None else 0)
    unused = UnusedMembers()

    def add(member: UnusedMember) -> None:
        unused.add(member)
        report.losses += member.is_loss

    try:
        for item in read_shard(shard):
            if isinstance(item, Damage):
                report.errors.append(item.text)
            elif isinstance(item, UnusedMember):
                add(item)
            elif has_image(item):
                report.samples += 1
                report.members.update(key for key in item if not key.startswith("__"))
            else:
                for member in without_image(item):
                    add(member)
    except SHARD_ERRORS as error:
        report.errors.append(error_text(shard, error))
    if check_counts and shard.samples not in (None, report.samples):
        report.errors.append(f"holds {report.samples} samples, its index says {shard.samples}")
    report.unused = list(unused.lines())
    return report
