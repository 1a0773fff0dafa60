"""Data sets: listing them, checking their images, looking at what a model is trained on."""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavis_lite.datasets.annotations.parquet_files import StoredImage

from lavis_lite.commands.arguments import add_import_argument, non_negative_int, positive_int

SHOWN = 20


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite datasets``, with ``check`` and ``show``."""
    parser = commands.add_parser("datasets", help="list, check and show data sets", allow_abbrev=False)
    parser.set_defaults(execute=_execute_list)
    add_import_argument(parser)
    kinds = parser.add_subparsers(dest="kind", metavar="check|show")
    check = kinds.add_parser("check", help="open every annotated image", allow_abbrev=False)
    check.add_argument("--num-workers", type=non_negative_int, default=2)
    check.set_defaults(execute=_execute_check)
    show = kinds.add_parser("show", help="write a page of samples", allow_abbrev=False)
    show.add_argument("-n", type=positive_int, default=50, help="samples to show")
    show.add_argument("--output", "-o", required=True, help="html file")
    show.set_defaults(execute=_execute_show)
    for command, splits in ((check, None), (show, "train")):
        command.add_argument("name", help="data set")
        command.add_argument(
            "--split", default=splits, help="all of them when left out" if not splits else None
        )
        command.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="of the data set")
        add_import_argument(command)


def dataset_settings(name: str, options: Sequence[str]) -> dict[str, Any]:
    """Return a data set's default settings with ``KEY=VALUE`` options over them.

    Raises:
        UnknownNameError: no such data set; the message names the nearest.
        ConfigError: an option that the data set does not have, or whose value cannot be.
    """
    from omegaconf import OmegaConf

    from lavis_lite.common.config.layering import dataset_defaults, read_options
    from lavis_lite.common.config.schema import parse
    from lavis_lite.common.registry import registry
    from lavis_lite.datasets import builders  # noqa: F401 (registers them)

    builder = registry.get_builder_class(name)
    defaults = dataset_defaults(builder, name) if builder.default_configs else {}
    settings = OmegaConf.to_container(OmegaConf.merge(defaults, read_options(options)), resolve=True)
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
    """Yield the name of each data set, which of its splits have their files here, and what it is."""
    from lavis_lite.common.registry import registry
    from lavis_lite.datasets.builders import dataset_zoo

    for name in dataset_zoo.get_names():
        builder = registry.get_builder_class(name)
        lines = (builder.__doc__ or "").strip().splitlines()
        yield name, _files_here(name), lines[0] if lines else "(no description)"


def _files_here(name: str) -> str:
    from lavis_lite.common.storage.cache import NoCacheError, resolve

    annotations = (dataset_settings(name, []).get("build_info") or {}).get("annotations") or {}
    if not annotations:
        return "yours"
    here = []
    for split, info in annotations.items():
        storage = info.get("storage") or []
        files = [storage] if isinstance(storage, str) else storage
        try:
            if files and all(resolve(file).is_file() for file in files):
                here.append(split)
        except NoCacheError:  # then no file can be in it
            continue
    return ", ".join(here) or "none"


@dataclass
class CheckReport:
    """What is wrong with the images of a split.

    Attributes:
        images: how many different ones are annotated.
        causes: how often each kind of fault occurs.
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
    """Open every image that a data set's annotations name, in parallel; yield a report a split.

    Raises:
        ConfigError: no such split, or a data set without image files.
    """
    from lavis_lite.common.config.schema import ConfigError
    from lavis_lite.common.distributed import leave_signals_to_parent
    from lavis_lite.common.logs.progress import Progress
    from lavis_lite.common.registry import registry
    from lavis_lite.datasets.annotations.image_names import media_of

    builder = registry.get_builder_class(name).from_config(settings)
    builder.refuse_missing = False  # each is to be listed here
    for one in [split] if split else builder.splits():
        dataset = builder.build(one)
        if not hasattr(dataset, "annotations") or not hasattr(dataset, "image_root"):
            raise ConfigError(
                f"{name}: is no data set of image files; `lavis-lite shards info` looks at shards."
            )
        images = list(dict.fromkeys(itertools.chain.from_iterable(map(media_of, dataset.annotations))))
        report = CheckReport(one, len(images))
        sources = [dataset.stored_images.get(image, dataset.image_root / image) for image in images]
        pool = ProcessPoolExecutor(max(1, num_workers), initializer=leave_signals_to_parent, initargs=(0,))
        try:
            with Progress(len(sources), f"check {one}") as progress:
                for image, reason in zip(images, pool.map(_fault_of, sources, chunksize=64), strict=True):
                    progress.advance()
                    if reason is not None:
                        report.bad.append((image, reason))
                        report.causes["missing" if "no such" in reason.lower() else "cannot be read"] += 1
        finally:
            pool.shutdown(cancel_futures=True)
        yield report


def _fault_of(source: Path | StoredImage) -> str | None:
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
    if not settings.get("vis_processor"):  # a run takes its model's; here BLIP's stand for them
        settings["vis_processor"] = {
            "train": {"name": "blip_image_train"},
            "eval": {"name": "blip_image_eval"},
        }
    dataset = registry.get_builder_class(options.name).from_config(settings).build(options.split)
    print(write_data_page(dataset, f"{options.name}, {options.split}", Path(options.output), options.n))
    return 0
