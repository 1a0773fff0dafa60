"""Cleaning a crawl: synthetic captions, and a filter over them and the web's."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavis_lite.commands.user_code import add_code_arguments, import_user_code

MODEL_HELP = "run folder, weights file, URL or hub name"


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite capfilt run``, ``refilter``, ``status``, ``report`` and ``judge``."""
    parser = commands.add_parser(
        "capfilt", help="caption and filter a crawl, or any images with texts", allow_abbrev=False
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="run|refilter|status|report|judge")
    run = kinds.add_parser("run", help="caption and filter; the same command goes on", allow_abbrev=False)
    run.add_argument(
        "shards",
        nargs="+",
        help="tar files: paths with * and {000..127}, addresses, folders; or images' folder",
    )
    run.add_argument("--output", "-o", required=True, help="folder for the cleaned shards and the scores")
    run.add_argument("--captioner", help=MODEL_HELP)
    run.add_argument("--captioner-name", default="blip_caption", help="model, without a run folder")
    run.add_argument("--captioner-type", default="base_coco", help="its type, likewise")
    run.add_argument("--filter", help=MODEL_HELP)
    run.add_argument("--filter-name", default="blip_image_text_matching", help="model, without a run folder")
    run.add_argument("--filter-type", default="base", help="its type, likewise")
    run.add_argument(
        "--text-key", default="txt", help="where the web's text stands: txt, or a field of the json"
    )
    run.add_argument("--allow-pipe", action="store_true", help="let shards be commands (pipe:...)")
    run.add_argument("--device", default="auto")
    run.add_argument("--ray", type=int, metavar="WORKERS", help="hand the work to so many Ray actors")
    run.add_argument("--ray-gpus", type=float, default=0.0, metavar="N", help="GPUs of each actor")
    add_code_arguments(run)
    run.set_defaults(execute=_execute_run)
    refilter = kinds.add_parser("refilter", help="decide anew from the scores", allow_abbrev=False)
    refilter.add_argument("folder", help="output folder of a run")
    refilter.add_argument("--output", "-o", required=True, help="json file for the kept pairs")
    refilter.add_argument("--threshold", type=float)
    refilter.set_defaults(execute=_execute_refilter)
    for command in (run, refilter):
        command.add_argument(
            "--options", nargs="+", default=[], metavar="KEY=VALUE", help="rule=itc threshold=0.3 ..."
        )
    judge = kinds.add_parser("judge", help="compare with the truth of shapes_web", allow_abbrev=False)
    judge.add_argument("folder", help="output folder of a run")
    judge.add_argument("--truth", required=True, help="folder of the drawn shards")
    judge.set_defaults(execute=_execute_judge)
    report = kinds.add_parser("report", help="write one page to look at", allow_abbrev=False)
    report.add_argument("folder", help="output folder of a run")
    report.add_argument("--truth", help="folder of the drawn shards, to compare with")
    report.set_defaults(execute=_execute_report)
    status = kinds.add_parser("status", help="print what is done", allow_abbrev=False)
    status.add_argument("folder", help="output folder of a run")
    status.set_defaults(execute=_execute_status)


def _execute_run(options: argparse.Namespace) -> int:
    from lavis_lite.capfilt.run import finish_run, start_run
    from lavis_lite.capfilt.work import run_units
    from lavis_lite.common.logging import setup_logging
    from lavis_lite.common.progress import Progress

    setup_logging()
    if options.ray:
        output, units, failed = _run_on_ray(options)
    else:
        given, models, settings = _prepare(options)
        output, units = start_run(given, models, settings, options.output), given.units
        worker, workers = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        with Progress(len(units), "capfilt") as progress:
            first = worker * len(units) // max(1, workers)
            failed = run_units(given, models, settings, output, progress, first)
    finish_run(output, units)
    _print_status(output.folder)
    for name in failed:
        print(f"{name}: could not be done: {(output.folder / 'failed' / f'{name}.txt').read_text().strip()}")
    return 1 if failed else 0


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


def _run_on_ray(options: argparse.Namespace) -> tuple[Any, Sequence[Any], list[str]]:
    import importlib.util

    from lavis_lite.capfilt.on_ray import run_on_ray
    from lavis_lite.capfilt.run import start_run
    from lavis_lite.common.schema import ConfigError

    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--ray needs Ray: pip install lavis-lite[ray].")
    given, models, settings = _prepare(options)
    output = start_run(given, models, settings, options.output)
    arguments = {"options": {k: v for k, v in vars(options).items() if k != "execute"}}
    failed = run_on_ray(_ray_worker, arguments, len(given.units), options.ray, options.ray_gpus)
    return output, given.units, failed


def _ray_worker(options: dict[str, Any]) -> Any:
    """Return, on an actor, what does a unit by its number."""
    from lavis_lite.capfilt.inputs import Input
    from lavis_lite.capfilt.run import start_run
    from lavis_lite.capfilt.work import run_units
    from lavis_lite.common.progress import Progress

    chosen = argparse.Namespace(**options)
    given, models, settings = _prepare(chosen)
    output = start_run(given, models, settings, chosen.output)

    def do_unit(number: int) -> list[str]:
        own = Input([given.units[number]], given.text_key)
        with Progress(1, "capfilt", enabled=False) as progress:
            return run_units(own, models, settings, output, progress)

    return do_unit


def _input(patterns: Sequence[str], text_key: str, allow_pipe: bool, unit_size: int) -> Any:
    """Return shards, or the images of a folder that holds no shards."""
    from lavis_lite.capfilt.inputs import from_folder, from_shards
    from lavis_lite.datasets.web.shards import list_shards

    folder = Path(patterns[0]).expanduser()
    if len(patterns) == 1 and folder.is_dir() and not any(folder.glob("*.tar")):
        return from_folder(folder, unit_size)
    return from_shards(list_shards(patterns, allow_pipe), text_key)


def _execute_refilter(options: argparse.Namespace) -> int:
    from dataclasses import fields

    from lavis_lite.capfilt.refilter import refilter, settings_of
    from lavis_lite.capfilt.settings import SelectionSettings

    names = {field.name for field in fields(SelectionSettings)}
    held = {key: value for key, value in settings_of(options.folder)["settings"].items() if key in names}
    over = list(options.options)
    if options.threshold is not None:
        over.append(f"threshold={options.threshold}")
    counts = refilter(options.folder, _settings(SelectionSettings, over, held), options.output)
    print(f"{counts['kept']} of {counts['texts']} texts kept: {options.output}")
    return 0


def _execute_judge(options: argparse.Namespace) -> int:
    figures = _judged(options)
    names = list(next(iter(figures.values()), {}))
    width = max(map(len, names), default=0)
    print(f"{'':<{width}}  " + "  ".join(f"{source:>9}" for source in figures))
    for name in names:
        print(f"{name:<{width}}  " + "  ".join(f"{own[name]:9.3f}" for own in figures.values()))
    return 0


def _execute_report(options: argparse.Namespace) -> int:
    from lavis_lite.capfilt.refilter import settings_of
    from lavis_lite.report.capfilt_report import write_capfilt_report

    settings_of(options.folder)  # refuses what is no output folder
    figures = _judged(options) if options.truth else None
    print(write_capfilt_report(Path(options.folder).expanduser(), figures))
    return 0


def _judged(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return precision, recall and the like of each source of texts."""
    from lavis_lite.capfilt.refilter import settings_of
    from lavis_lite.capfilt.tables import read_rows
    from lavis_lite.datasets.shapes.judge import judge
    from lavis_lite.datasets.shapes.write_web import read_truth

    settings_of(options.folder)  # refuses what is no output folder
    tables = sorted((Path(options.folder).expanduser() / "scores").glob("*.parquet"))
    truth = read_truth(Path(options.truth).expanduser())
    return judge([row for table in tables for row in read_rows(table)], truth)


def _execute_status(options: argparse.Namespace) -> int:
    from lavis_lite.capfilt.refilter import settings_of

    settings_of(options.folder)  # refuses what is no output folder
    _print_status(Path(options.folder).expanduser())
    return 0


def _print_status(folder: Path) -> None:
    markers = [json.loads(file.read_text()) for file in sorted((folder / "done").glob("*.json"))]
    failed = len(list((folder / "failed").glob("*.txt")))
    sums = {key: sum(m[key] for m in markers) for key in ("samples", "kept", "filtered", "failed")}
    print(
        f"{len(markers)} shards done, {failed} set aside, {sum(bool(m['damage']) for m in markers)} damaged"
    )
    print(", ".join(f"{count} {key}" for key, count in sums.items()))
    from lavis_lite.capfilt.timing import summary

    held = folder / "settings.json"
    units = len(json.loads(held.read_text(encoding="utf-8"))["shards"]) if held.is_file() else len(markers)
    times = [
        json.loads(file.read_text(encoding="utf-8")) for file in sorted((folder / "times").glob("*.json"))
    ]
    print(summary(times, units))


def _settings(settings_class: type, options: Sequence[str], held: dict[str, Any] | None = None) -> Any:
    from omegaconf import OmegaConf

    from lavis_lite.common.config import read_options
    from lavis_lite.common.schema import parse

    given = OmegaConf.to_container(read_options(options), resolve=True)
    return parse(settings_class, {**(held or {}), **given}, where="capfilt")
