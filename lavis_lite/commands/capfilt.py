"""Cleaning a crawl: synthetic captions, and a filter over them and the web's texts."""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lavis_lite.commands.arguments import (
    add_code_arguments,
    add_max_pixels,
    finite_float,
    import_user_code,
    non_negative_float,
    positive_int,
)

if TYPE_CHECKING:
    from lavis_lite.capfilt.job import Job
    from lavis_lite.capfilt.settings import SelectionSettings
    from lavis_lite.capfilt.sources import Input

MODEL_HELP = "run folder, weights file, URL or hub name"
Settings = TypeVar("Settings", bound="SelectionSettings")


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite capfilt run``, ``refilter``, ``status`` and ``report``."""
    parser = commands.add_parser(
        "capfilt", help="caption and filter a crawl, or any images with texts", allow_abbrev=False
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="run|refilter|status|report")
    run = kinds.add_parser("run", help="caption and filter; the same command continues", allow_abbrev=False)
    run.add_argument(
        "shards",
        nargs="+",
        help="tar files: paths with * and {000..127}, addresses, folders; or a folder of images",
    )
    run.add_argument("--output", "-o", required=True, help="folder for the cleaned shards and the scores")
    run.add_argument("--captioner", help=MODEL_HELP)
    run.add_argument("--captioner-name", default="blip_caption", help="model, without a run folder")
    run.add_argument("--captioner-type", default="base_coco", help="its type, without a run folder")
    run.add_argument("--filter", help=MODEL_HELP)
    run.add_argument("--filter-name", default="blip_image_text_matching", help="model, without a run folder")
    run.add_argument("--filter-type", default="base", help="its type, without a run folder")
    run.add_argument("--text-key", default="txt", help="where the web text is: txt, or a field of the json")
    run.add_argument("--allow-pipe", action="store_true", help="let shards be commands (pipe:...)")
    run.add_argument("--device", default="auto")
    add_max_pixels(run)
    run.add_argument(
        "--verify", action="store_true", help="read all finished files again and repair damaged ones"
    )
    run.add_argument("--ray", type=positive_int, metavar="WORKERS", help="run on so many Ray actors")
    run.add_argument(
        "--ray-gpus", type=non_negative_float, default=0.0, metavar="N", help="GPUs of each actor"
    )
    add_code_arguments(run)
    run.set_defaults(execute=_execute_run)
    refilter = kinds.add_parser("refilter", help="apply other settings to the scores", allow_abbrev=False)
    refilter.add_argument("folder", help="output folder of a run")
    refilter.add_argument("--output", "-o", required=True, help="json file for the kept pairs")
    refilter.add_argument("--threshold", type=finite_float)
    refilter.set_defaults(execute=_execute_refilter)
    for command in (run, refilter):
        command.add_argument(
            "--options", nargs="+", default=[], metavar="KEY=VALUE", help="rule=itc threshold=0.3 ..."
        )
    report = kinds.add_parser("report", help="write one page to look at", allow_abbrev=False)
    report.add_argument("folder", help="output folder of a run")
    report.add_argument(
        "--figures", metavar="JSON", help="how good the filter is, to show: {source: {name: number}}"
    )
    report.set_defaults(execute=_execute_report)
    status = kinds.add_parser("status", help="print what is done", allow_abbrev=False)
    status.add_argument("folder", help="output folder of a run")
    status.set_defaults(execute=_execute_status)


def _execute_run(options: argparse.Namespace) -> int:
    from lavis_lite.capfilt import STOPPED_NOTE
    from lavis_lite.common.signals import exit_on_signals

    with exit_on_signals(STOPPED_NOTE, at_once=True):
        from lavis_lite.capfilt.summary import status_lines
        from lavis_lite.capfilt.workers import run_job, run_job_on_ray
        from lavis_lite.common.logs.setup import setup_logging

        setup_logging()
        if options.ray:
            arguments = {key: value for key, value in vars(options).items() if key != "execute"}
            build_job = functools.partial(_ray_job, arguments)
            output, failed = run_job_on_ray(build_job, options.ray, options.ray_gpus)
        else:
            worker, workers = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
            output, failed = run_job(_job(options), worker, workers)
        for line in status_lines(output, failed):
            print(line)
    return 1 if failed else 0


def _ray_job(arguments: Mapping[str, Any]) -> Job:
    """Return the job of a command line, on a Ray actor."""
    from lavis_lite.common.media.images import set_max_pixels

    options = argparse.Namespace(**arguments)
    if options.max_pixels is not None:
        set_max_pixels(options.max_pixels)
    return _job(options)


def _job(options: argparse.Namespace) -> Job:
    from lavis_lite.capfilt.captioner import Captioner
    from lavis_lite.capfilt.job import Job
    from lavis_lite.capfilt.score_tables import with_threshold
    from lavis_lite.capfilt.scorers import Scorers, load_model
    from lavis_lite.capfilt.settings import CapFiltSettings
    from lavis_lite.common import distributed

    settings = _settings(CapFiltSettings, options.options, {"scorers": {"blip": {}}})
    if "blip" in settings.scorers:
        blip = {"model": options.filter_name, "model_type": options.filter_type}
        blip |= {"checkpoint": options.filter} if options.filter else {}
        settings.scorers["blip"] = {**blip, **(settings.scorers["blip"] or {})}
    import_user_code(options, options.captioner, (settings.scorers.get("blip") or {}).get("checkpoint"))
    settings = with_threshold(settings)
    crawl = _input(options.shards, options.text_key, options.allow_pipe, settings.shard_size)
    device = distributed.pick_device(options.device)
    model, image_processor = None, None
    if settings.captions_per_image:
        model, image_processor = load_model(
            options.captioner_name, options.captioner_type, options.captioner, device
        )
    captioner = Captioner(model, image_processor, settings, device)
    output = Path(options.output).expanduser()
    return Job(crawl, captioner, Scorers(settings, device), settings, output, options.verify)


def _input(patterns: Sequence[str], text_key: str, allow_pipe: bool, unit_size: int) -> Input:
    """Return shards, or the images of a folder that holds no shards."""
    from lavis_lite.capfilt.sources import from_folder, from_shards
    from lavis_lite.datasets.web.shards import list_shards

    folders = [path for path in (Path(pattern).expanduser() for pattern in patterns) if path.is_dir()]
    if len(patterns) == 1 and folders and not any(folders[0].glob("*.tar")):
        return from_folder(folders[0], unit_size)
    return from_shards(list_shards(patterns, allow_pipe), text_key, folders)


def _execute_refilter(options: argparse.Namespace) -> int:
    from dataclasses import fields

    from lavis_lite.capfilt.output_reader import OutputReader
    from lavis_lite.capfilt.score_tables import refilter
    from lavis_lite.capfilt.settings import SelectionSettings

    names = {field.name for field in fields(SelectionSettings)}
    begun_with = OutputReader(options.folder).settings()["settings"]
    changes = list(options.options)
    if options.threshold is not None:
        changes.append(f"threshold={options.threshold}")
    settings = _settings(
        SelectionSettings, changes, {key: value for key, value in begun_with.items() if key in names}
    )
    counts = refilter(options.folder, settings, options.output)
    print(f"{counts['kept']} of {counts['texts']} texts kept: {options.output}")
    return 0


def _execute_report(options: argparse.Namespace) -> int:
    from lavis_lite.capfilt.output_reader import OutputReader
    from lavis_lite.capfilt.summary import totals_of, warnings_about
    from lavis_lite.common.files import read_json
    from lavis_lite.report.capfilt_report import write_capfilt_report

    output = OutputReader(options.folder)
    warnings = warnings_about(totals_of(output.markers().values()), output.settings())
    figures = read_json(Path(options.figures).expanduser()) if options.figures else None
    print(write_capfilt_report(output, figures, warnings))
    return 0


def _execute_status(options: argparse.Namespace) -> int:
    from lavis_lite.capfilt.output_reader import OutputReader
    from lavis_lite.capfilt.summary import status_lines

    for line in status_lines(OutputReader(options.folder)):
        print(line)
    return 0


def _settings(
    settings_class: type[Settings], options: Sequence[str], defaults: Mapping[str, Any]
) -> Settings:
    from lavis_lite.common.config.layering import plain_values, read_options
    from lavis_lite.common.config.schema import parse

    changes = plain_values(read_options(options))
    return parse(settings_class, {**defaults, **changes}, where="capfilt")
