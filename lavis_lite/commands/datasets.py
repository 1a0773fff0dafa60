"""``lavis-lite datasets``: list data sets, check their images, show what a model is trained on."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_lite.commands.arguments import add_import_argument, non_negative_int, positive_int

if TYPE_CHECKING:
    from lavis_lite.datasets.annotations.parquet_files import StoredImage

SHOWN = 20


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite datasets``, with ``check`` and ``show``."""
    parser = commands.add_parser("datasets", help="list, check and show data sets", allow_abbrev=False)
    parser.set_defaults(execute=_execute_list)
    add_import_argument(parser)
    kinds = parser.add_subparsers(dest="kind", metavar="check|show")
    check = kinds.add_parser("check", help="open every annotated image", allow_abbrev=False)
    check.add_argument("--num-workers", type=non_negative_int, default=2)
    check.add_argument("--split", help="default: all splits")
    check.set_defaults(execute=_execute_check)
    show = kinds.add_parser("show", help="write a page of samples", allow_abbrev=False)
    show.add_argument("-n", type=positive_int, default=50, help="number of samples")
    show.add_argument("--output", "-o", required=True, help="html file")
    show.add_argument("--split", default="train")
    show.set_defaults(execute=_execute_show)
    for command in (check, show):
        command.add_argument("name", help="data set")
        command.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="of the data set")
        add_import_argument(command)


def dataset_settings(name: str, options: Sequence[str]) -> dict[str, Any]:
    """Return the default settings of a data set, overridden by ``KEY=VALUE`` options.

    Raises:
        UnknownNameError: no such data set; the message names the nearest.
        ConfigError: an unknown option, or an invalid value.
    """
    from omegaconf import OmegaConf

    from lavis_lite.common.config.layering import dataset_defaults, read_options
    from lavis_lite.common.config.schema import parse
    from lavis_lite.common.registry import registry
    from lavis_lite.datasets import builders  # noqa: F401 (registers them)

    builder = registry.get_builder_class(name)
    merged = OmegaConf.merge(dataset_defaults(builder, name), read_options(options))
    plain = OmegaConf.to_container(merged, resolve=True)
    assert isinstance(plain, dict)
    settings = {str(key): value for key, value in plain.items()}
    if options:
        parse(builder.Config, settings, where=f"datasets.{name}")
    return settings


def _execute_list(options: argparse.Namespace) -> int:
    from lavis_lite.common.config.user_modules import import_modules

    import_modules(options.imports)
    rows = [("name", "splits here", "what it is"), *list_datasets()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, state, text in rows:
        print(f"{name:<{widths[0]}}  {state:<{widths[1]}}  {text}")
    return 0


def list_datasets() -> Iterator[tuple[str, str, str]]:
    """Yield the name of each data set, the splits whose files exist, and a description."""
    from lavis_lite.common.registry import registry
    from lavis_lite.datasets.builders import dataset_zoo

    for name in dataset_zoo.get_names():
        description = (registry.get_builder_class(name).__doc__ or "").strip()
        yield name, _splits_here(name), description.partition("\n")[0] or "(no description)"


def _splits_here(name: str) -> str:
    from lavis_lite.common.storage.cache import NoCacheError, resolve
    from lavis_lite.datasets.builders.base_builder import as_list

    annotations = (dataset_settings(name, []).get("build_info") or {}).get("annotations") or {}
    if not annotations:
        return "yours"
    here = []
    for split, info in annotations.items():
        files = as_list(info.get("storage"))
        try:
            if files and all(resolve(file).is_file() for file in files):
                here.append(split)
        except NoCacheError:
            continue
    return ", ".join(here) or "none"


@dataclass
class CheckReport:
    """The errors in the images of a split.

    Attributes:
        images: number of different annotated images.
        causes: number of images by kind of error.
        bad: (image, reason) of each that cannot be used.
    """

    split: str
    images: int
    causes: Counter[str] = field(default_factory=Counter)
    bad: list[tuple[str, str]] = field(default_factory=list)


def _execute_check(options: argparse.Namespace) -> int:
    from lavis_lite.common.config.user_modules import import_modules

    import_modules(options.imports)
    settings = dataset_settings(options.name, options.options)
    failed = 0
    for report in check_images(options.name, settings, options.split, options.num_workers):
        failed += len(report.bad)
        print(f"{options.name} {report.split}: {report.images} images, {len(report.bad)} cannot be used")
        for cause, count in report.causes.most_common():
            print(f"  {count} {cause}")
        for image, reason in report.bad[:SHOWN]:
            print(f"  {image}: {reason}")
        if len(report.bad) > SHOWN:
            print(f"  and {len(report.bad) - SHOWN} more")
    return 1 if failed else 0


def check_images(
    name: str, settings: dict[str, Any], split: str | None = None, num_workers: int = 2
) -> Iterator[CheckReport]:
    """Open every annotated image of a data set, in parallel; yield a report for each split.

    Raises:
        ConfigError: no such split, or a data set without image files.
    """
    from lavis_lite.common.config.schema import ConfigError
    from lavis_lite.common.distributed import leave_signals_to_parent
    from lavis_lite.common.logs.progress import Progress
    from lavis_lite.common.registry import registry
    from lavis_lite.datasets.annotations.image_names import media_of
    from lavis_lite.datasets.base_dataset import BaseDataset

    builder = registry.get_builder_class(name).from_config(settings)
    builder.refuse_missing = False  # they are reported here
    for one in [split] if split else builder.splits():
        dataset = builder.build(one)
        if not isinstance(dataset, BaseDataset):
            raise ConfigError(
                f"{name}: is no data set of image files; `lavis-lite shards info` looks at shards."
            )
        images = list(dict.fromkeys(image for record in dataset.annotations for image in media_of(record)))
        report = CheckReport(one, len(images))
        sources = [dataset.stored_images.get(image, dataset.image_root / image) for image in images]
        pool = ProcessPoolExecutor(max(1, num_workers), initializer=leave_signals_to_parent, initargs=(0,))
        try:
            with Progress(len(sources), f"check {one}") as progress:
                for image, reason in zip(images, pool.map(_error_of, sources, chunksize=64), strict=True):
                    progress.advance()
                    if reason is not None:
                        report.bad.append((image, reason))
                        report.causes["missing" if "no such" in reason.lower() else "cannot be read"] += 1
        finally:
            pool.shutdown(cancel_futures=True)
        yield report


def _error_of(source: Path | StoredImage) -> str | None:
    from lavis_lite.common.media.images import ImageError, open_image

    try:
        open_image(source) if isinstance(source, Path) else source.open()
    except ImageError as error:
        return str(error).removeprefix(f"{source}: ")
    return None


def _execute_show(options: argparse.Namespace) -> int:
    from lavis_lite.common.config.user_modules import import_modules
    from lavis_lite.common.registry import registry
    from lavis_lite.report.data_page import write_data_page

    import_modules(options.imports)
    settings = dataset_settings(options.name, options.options)
    if not settings.get("vis_processor"):  # a run uses those of its model
        settings["vis_processor"] = {
            "train": {"name": "blip_image_train"},
            "eval": {"name": "blip_image_eval"},
        }
    dataset = registry.get_builder_class(options.name).from_config(settings).build(options.split)
    print(write_data_page(dataset, f"{options.name}, {options.split}", Path(options.output), options.n))
    return 0
