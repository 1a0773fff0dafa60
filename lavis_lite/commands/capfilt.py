"""Cleaning a crawl: synthetic captions, and a filter over them and the web's."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavis_lite.commands.arguments import finite_float, non_negative_float, positive_int
from lavis_lite.commands.pixel_limit import add_max_pixels
from lavis_lite.commands.user_code import add_code_arguments, import_user_code

MODEL_HELP = "run folder, weights file, URL or hub name"


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
    run.add_argument(
        "--text-key", default="txt", help="where the web's text stands: txt, or a field of the json"
    )
    run.add_argument("--allow-pipe", action="store_true", help="let shards be commands (pipe:...)")
    run.add_argument("--device", default="auto")
    add_max_pixels(run)
    run.add_argument(
        "--verify", action="store_true", help="read all finished files again and repair damaged ones"
    )
    run.add_argument(
        "--ray", type=positive_int, metavar="WORKERS", help="hand the work to so many Ray actors"
    )
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
    from lavis_lite.capfilt.stop import leave_on_signals

    with leave_on_signals():
        from lavis_lite.capfilt.summary import failure_lines, status_lines
        from lavis_lite.common.logs.setup import setup_logging

        setup_logging()
        folder, failed = _run_on_ray(options) if options.ray else _run_here(options)
        for line in [*status_lines(folder), *failure_lines(folder, failed)]:
            print(line)
    return 1 if failed else 0


def _run_here(options: argparse.Namespace) -> tuple[Path, list[str]]:
    """Do the units that no other process does; return the output folder and the units that failed."""
    from lavis_lite.capfilt.run import run_and_finish, start_run
    from lavis_lite.capfilt.work import run_units
    from lavis_lite.common.logs.progress import Progress

    given, models, settings = _prepare(options)
    output = start_run(given, models, settings, options.output, options.verify)
    worker, workers = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    first = worker * len(given.units) // max(1, workers)
    with Progress(len(given.units), "capfilt") as progress:

        def run() -> list[str]:
            return run_units(given, models, settings, output, progress, first)

        return output.folder, run_and_finish(run, output, given.units)


def _prepare(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Return what to read, the models, and the settings."""
    from lavis_lite.capfilt.models import build_models
    from lavis_lite.capfilt.reference import with_threshold
    from lavis_lite.capfilt.scorers import load_model
    from lavis_lite.capfilt.settings import CapFiltSettings
    from lavis_lite.common import distributed

    settings = _settings(CapFiltSettings, options.options, {"scorers": {"blip": {}}})
    if "blip" in settings.scorers:
        chosen = {"model": options.filter_name, "model_type": options.filter_type}
        chosen |= {"checkpoint": options.filter} if options.filter else {}
        settings.scorers["blip"] = {**chosen, **(settings.scorers["blip"] or {})}
    import_user_code(options, options.captioner, (settings.scorers.get("blip") or {}).get("checkpoint"))
    settings = with_threshold(settings)
    given = _input(options.shards, options.text_key, options.allow_pipe, settings.shard_size)
    device = distributed.pick_device(options.device)
    captioner, eyes = None, None
    if settings.captions_per_image:
        captioner, eyes = load_model(
            options.captioner_name, options.captioner_type, options.captioner, device
        )
    return given, build_models(captioner, eyes, settings, device), settings


def _run_on_ray(options: argparse.Namespace) -> tuple[Path, list[str]]:
    """Have all units done by actors; return the output folder and the units that failed."""
    import importlib.util

    from lavis_lite.capfilt.on_ray import run_on_ray
    from lavis_lite.capfilt.run import run_and_finish, start_run
    from lavis_lite.common.config.schema import ConfigError

    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--ray needs Ray: pip install lavis-lite[ray].")
    given, models, settings = _prepare(options)
    output = start_run(given, models, settings, options.output, options.verify)
    arguments = {"options": {k: v for k, v in vars(options).items() if k != "execute"}}

    def run() -> list[str]:
        return run_on_ray(_ray_worker, arguments, len(given.units), options.ray, options.ray_gpus)

    return output.folder, run_and_finish(run, output, given.units)


def _ray_worker(options: dict[str, Any]) -> Any:
    """Return, on an actor, what does a unit by its number."""
    from lavis_lite.capfilt.inputs import Input
    from lavis_lite.capfilt.run import start_run
    from lavis_lite.capfilt.work import run_units
    from lavis_lite.common.logs.progress import Progress
    from lavis_lite.common.media.images import set_max_pixels

    chosen = argparse.Namespace(**options)
    if chosen.max_pixels is not None:
        set_max_pixels(chosen.max_pixels)
    given, models, settings = _prepare(chosen)
    output = start_run(given, models, settings, chosen.output, chosen.verify)

    def do_unit(number: int) -> list[str]:
        own = Input([given.units[number]], given.text_key)
        with Progress(1, "capfilt", enabled=False) as progress:
            return run_units(own, models, settings, output, progress)

    return do_unit


def _input(patterns: Sequence[str], text_key: str, allow_pipe: bool, unit_size: int) -> Any:
    """Return shards, or the images of a folder that holds no shards."""
    from lavis_lite.capfilt.inputs import from_folder, from_shards, with_folders
    from lavis_lite.datasets.web.shards import list_shards

    folders = [path for path in (Path(pattern).expanduser() for pattern in patterns) if path.is_dir()]
    if len(patterns) == 1 and folders and not any(folders[0].glob("*.tar")):
        return from_folder(folders[0], unit_size)
    return with_folders(from_shards(list_shards(patterns, allow_pipe), text_key), folders)


def _execute_refilter(options: argparse.Namespace) -> int:
    from dataclasses import fields

    from lavis_lite.capfilt.begin import read_settings
    from lavis_lite.capfilt.refilter import refilter
    from lavis_lite.capfilt.settings import SelectionSettings

    names = {field.name for field in fields(SelectionSettings)}
    begun_with = read_settings(Path(options.folder).expanduser())["settings"]
    held = {key: value for key, value in begun_with.items() if key in names}
    over = list(options.options)
    if options.threshold is not None:
        over.append(f"threshold={options.threshold}")
    counts = refilter(options.folder, _settings(SelectionSettings, over, held), options.output)
    print(f"{counts['kept']} of {counts['texts']} texts kept: {options.output}")
    return 0


def _execute_report(options: argparse.Namespace) -> int:
    from lavis_lite.capfilt.begin import read_settings
    from lavis_lite.capfilt.markers import read_markers
    from lavis_lite.capfilt.summary import totals_of, warnings_about
    from lavis_lite.common.files import read_json
    from lavis_lite.report.capfilt_report import write_capfilt_report

    folder = Path(options.folder).expanduser()
    begun_with = read_settings(folder)
    warnings = warnings_about(totals_of(read_markers(folder, any_version=True).values()), begun_with)
    figures = read_json(Path(options.figures).expanduser()) if options.figures else None
    print(write_capfilt_report(folder, figures, warnings))
    return 0


def _execute_status(options: argparse.Namespace) -> int:
    from lavis_lite.capfilt.summary import status_lines

    for line in status_lines(Path(options.folder).expanduser()):
        print(line)
    return 0


def _settings(settings_class: type, options: Sequence[str], held: dict[str, Any] | None = None) -> Any:
    from omegaconf import OmegaConf

    from lavis_lite.common.config.layering import read_options
    from lavis_lite.common.config.schema import parse

    given = OmegaConf.to_container(read_options(options), resolve=True)
    return parse(settings_class, {**(held or {}), **given}, where="capfilt")
