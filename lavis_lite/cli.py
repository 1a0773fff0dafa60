"""The `lavis-lite` command, and what `train.py` and `evaluate.py` call."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from lavis_lite.commands.pixel_limit import add_max_pixels

# Modules of lavis_lite.commands that add a parser of their own; light to import.
COMMANDS = ("models", "convert", "search", "datasets", "download", "shards", "capfilt", "bootstrap")

WRONG_PATHS = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


def main(command: str | None = None, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and leave with its exit code.

    Exit codes: 0 done, 1 the user must change something (one message says what), 2 a malformed
    command line, 128 + signal number where a signal stopped a run that can go on.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if command is not None:
        words.insert(0, command)
    options = _parser(command).parse_args(words)
    sys.exit(_run(options))


def _parser(command: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lavis-lite", description="Train, evaluate and use BLIP models.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (("train", "train and test as a config says"), ("evaluate", "only test")):
        _add_run_arguments(commands.add_parser(name, help=text, allow_abbrev=False))
    _add_caption_arguments(commands.add_parser("caption", help="caption image files", allow_abbrev=False))
    report = commands.add_parser("report", help="write report.html of a run folder")
    report.add_argument("run", help="output folder of a run")
    report.add_argument("--captions", help="json that `caption` wrote, to show beside")
    metrics = commands.add_parser("metrics", help="print the metrics of a run folder")
    metrics.add_argument("run", help="output folder of a run")
    for module in COMMANDS:
        importlib.import_module(f"lavis_lite.commands.{module}").add_parser(commands)
    if command is not None:
        parser.prog = f"{command}.py"
    return parser


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cfg-path", required=True, help="run file (yaml)")
    parser.add_argument(
        "--options",
        nargs="+",
        default=[],
        action="extend",
        metavar="KEY=VALUE",
        help="settings over the run file",
    )
    parser.add_argument(
        "--import",
        dest="imports",
        nargs="+",
        default=[],
        action="extend",
        metavar="MODULE",
        help="your own modules: dotted names or .py files",
    )


def _add_caption_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--checkpoint", default="", help="run folder, weights file or URL")
    parser.add_argument("--name", default="blip_caption", help="model, where the checkpoint is no run folder")
    parser.add_argument("--type", dest="model_type", default="base_coco", help="its type, likewise")
    parser.add_argument("--output", help="file to write; standard output when left out")
    parser.add_argument("--format", choices=("json", "csv"), help="by the name of the output when left out")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--num-captions", type=int, default=1)
    parser.add_argument("--prompt", help="text that every caption starts with")
    parser.add_argument("--num-beams", type=int)
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--min-length", type=int)
    parser.add_argument("--sample", action="store_true", help="nucleus sampling in place of beam search")
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--seed", type=int)
    add_max_pixels(parser)


def _run(options: argparse.Namespace) -> int:
    from lavis_lite.common.registry import UnknownNameError
    from lavis_lite.common.schema import ConfigError

    try:
        if hasattr(options, "execute"):
            return options.execute(options)
        if options.command in ("train", "evaluate"):
            return _launch(options)
        if options.command == "caption":
            return _caption(options)
        return _report(options) if options.command == "report" else _metrics(options)
    except (ConfigError, UnknownNameError) as error:
        return _complain(error)
    except (ValueError, OSError) as error:
        # Our own complaints, and paths that are not what they should be; all else deserves its traceback.
        if type(error).__module__.startswith("lavis_lite.") or isinstance(error, WRONG_PATHS):
            return _complain(error)
        raise


def _complain(error: Exception) -> int:
    if os.environ.get("RANK", "0") == "0":
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return 1


def _launch(options: argparse.Namespace) -> int:
    from lavis_lite.commands.launch import launch, print_table
    from lavis_lite.runners.runner_base import TrainingError
    from lavis_lite.runners.signals import StoppedError

    try:
        folder = launch(
            options.cfg_path, options.options, options.imports, evaluate_only=options.command == "evaluate"
        )
    except StoppedError as stopped:
        print(f"{stopped}; the state is saved and the same command goes on.", file=sys.stderr)
        return stopped.exit_code
    except TrainingError as error:
        return _complain(error)
    if os.environ.get("RANK", "0") == "0":
        print_table(folder)
    return 0


def _caption(options: argparse.Namespace) -> int:
    from lavis_lite.commands.caption import caption_files, write_captions
    from lavis_lite.common.logging import setup_logging

    setup_logging()
    given = {
        "prompt": options.prompt,
        "num_beams": options.num_beams,
        "max_length": options.max_length,
        "min_length": options.min_length,
        "use_nucleus_sampling": True if options.sample else None,
        "top_p": options.top_p,
        "seed": options.seed,
    }
    records = caption_files(
        options.paths,
        options.checkpoint,
        name=options.name,
        model_type=options.model_type,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        device=options.device,
        num_captions=options.num_captions,
        **{key: value for key, value in given.items() if value is not None},
    )
    form = options.format or ("csv" if (options.output or "").endswith(".csv") else "json")
    failed = write_captions(records, options.output, form)
    return 1 if failed else 0


def _report(options: argparse.Namespace) -> int:
    from pathlib import Path

    from lavis_lite.report.run_report import write_run_report

    captions = Path(options.captions) if options.captions else None
    print(write_run_report(Path(options.run), captioned_folder_json=captions))
    return 0


def _metrics(options: argparse.Namespace) -> int:
    from pathlib import Path

    from lavis_lite.commands.launch import print_table
    from lavis_lite.common.run_folder import RunFolder
    from lavis_lite.common.schema import ConfigError

    folder = RunFolder(Path(options.run))
    if not folder.evaluate_file.is_file():
        raise ConfigError(f"{folder.evaluate_file}: no such file; the run has not been tested, or is none.")
    print_table(folder)
    return 0
