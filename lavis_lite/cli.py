"""The `lavis-lite` command, which `train.py` and `evaluate.py` call too."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from lavis_lite.commands.arguments import Parser, add_code_arguments
from lavis_lite.common.signals import StoppedError, end_with_launcher, exit_on_signals

# Modules of lavis_lite.commands that each add their own parser; quick to import.
COMMANDS = ("caption", "report", "models", "convert", "search", "datasets", "download", "shards", "capfilt")
DEBUG_VARIABLE = "LAVIS_LITE_DEBUG"


def main(command: str | None = None, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit with its code.

    Exit codes: 0 success, 1 an error that the user can mend (one message says how), 2 a malformed
    command line, 128 + signal number where a signal stopped a run that can continue, 141 where the
    reader of standard output is gone.

    Args:
        command: the subcommand, for scripts that run only one; None reads it from `arguments`.
        arguments: words of the command line; None uses those of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if command is not None:
        words.insert(0, command)
    words, debug = _without_debug(words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # never fail on text that the encoding lacks
    end_with_launcher()
    with exit_on_signals():
        sys.exit(_run(words, command, debug))


def _without_debug(words: list[str]) -> tuple[list[str], bool]:
    """Return the words without ``--debug``, which may stand anywhere, and whether to debug."""
    end = words.index("--") if "--" in words else len(words)
    rest = [word for word in words[:end] if word != "--debug"]
    debug = len(rest) < end or os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")
    return rest + words[end:], debug


# argparse, not click or typer: they cannot express LAVIS's `--options a=b c=d`, several words of one option.
def _parser(command: str | None) -> Parser:
    parser = Parser(
        prog="lavis-lite",
        description="Train, evaluate and use BLIP models.",
        epilog=f"With --debug, or {DEBUG_VARIABLE}=1 in the environment, errors come with their traceback.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (("train", "train and test as a config says"), ("evaluate", "only test")):
        _add_run_arguments(commands.add_parser(name, help=text), name)
    for module in COMMANDS:
        importlib.import_module(f"lavis_lite.commands.{module}").add_parser(commands)
    if command is not None:
        parser.prog = f"{command}.py"
    return parser


def _add_run_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    if command == "evaluate":
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("run", nargs="?", help="run folder; its best checkpoint is tested")
        source.add_argument("--cfg-path", help="run file (yaml), or a run folder")
    else:
        parser.add_argument("--cfg-path", required=True, help="run file (yaml)")
    parser.add_argument(
        "--options",
        nargs="+",
        default=[],
        action="extend",
        metavar="KEY=VALUE",
        help="settings over the run file",
    )
    add_code_arguments(parser)
    parser.set_defaults(execute=_launch)


def _run(words: Sequence[str], command: str | None, debug: bool) -> int:
    """Parse and execute a command line; return the exit code."""
    options = argparse.Namespace(command=command)
    try:
        _parser(command).parse_args(words, options)
        code: int = options.execute(options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("stopped at once.", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        from lavis_lite.commands.errors import report_error

        return report_error(error, debug, of_a_run=options.command in ("train", "evaluate"))


def _launch(options: argparse.Namespace) -> int:
    from lavis_lite.commands.launch import launch, print_table
    from lavis_lite.common.distributed import launched_by_torchrun

    is_first = not launched_by_torchrun() or os.environ["RANK"] == "0"
    try:
        folder = launch(
            options.cfg_path or options.run,
            options.options,
            options.imports,
            evaluate_only=options.command == "evaluate",
            trust_imports=options.trust_imports,
        )
    except StoppedError as stopped:
        if is_first:
            print(f"{stopped}; the state is saved and the same command continues.", file=sys.stderr)
        return stopped.exit_code
    if is_first:
        print_table(folder)
    return 0
