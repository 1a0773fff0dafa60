"""The `lavis-lite` command, and what `train.py` and `evaluate.py` call."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn, TextIO

from lavis_lite.commands.arguments import Parser
from lavis_lite.commands.user_code import add_code_arguments
from lavis_lite.common.signals import StoppedError, end_with_launcher, exit_on_signals

# Modules of lavis_lite.commands that add a parser of their own; light to import.
COMMANDS = ("caption", "report", "models", "convert", "search", "datasets", "download", "shards", "capfilt")
TRAINING = ("train", "evaluate")
DEBUG_VARIABLE = "LAVIS_LITE_DEBUG"
CLOSED_PIPE = 128 + 13  # what a shell shows for a program whose reader went away (SIGPIPE)


def main(command: str | None = None, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and leave with its exit code.

    Exit codes: 0 done, 1 the user must change something (one message says what), 2 a malformed
    command line, 128 + signal number where a signal stopped a run that can go on, 141 where the
    reader of standard output went away.

    Args:
        command: the subcommand, for scripts that are one; None reads it from `arguments`.
        arguments: words of the command line; None takes those of this process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if command is not None:
        words.insert(0, command)
    words, debug = _without_debug(words)
    _let_streams_take_any_text()
    end_with_launcher()
    with exit_on_signals():
        sys.exit(_run(words, command, debug))


def _without_debug(words: list[str]) -> tuple[list[str], bool]:
    """Return the words without ``--debug``, which may stand anywhere, and whether it was there or is set."""
    end = words.index("--") if "--" in words else len(words)
    rest = [word for word in words[:end] if word != "--debug"]
    debug = len(rest) < end or os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0")
    return rest + words[end:], debug


def _let_streams_take_any_text() -> None:
    """Escape what the encoding of standard output and error lacks, in place of ending with an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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


def _run(words: Sequence[str], command: str | None, debug: bool) -> int:
    """Parse and execute a command line; return the exit code."""
    options = argparse.Namespace(command=command)
    try:
        _parser(command).parse_args(words, options)
        code = options.execute(options) if hasattr(options, "execute") else _launch(options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("stopped at once.", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        if isinstance(error, OSError) and _output_is_lost():
            return _lost_output_code(error)
        return _tell(error, options.command, debug)


def _output_is_lost() -> bool:
    """Return whether standard output or error takes no more; if so, discard what they still hold.

    Otherwise Python would try to write it once more at its end, and complain.
    """
    lost = False
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
            gone = _reader_is_gone(stream)
        except OSError:
            gone = True
        if gone:
            lost = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return lost


def _reader_is_gone(stream: TextIO) -> bool:
    """Return whether `stream` is a pipe that nobody reads any more."""
    if not hasattr(select, "poll"):
        return False
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:  # not a file of the system
        return False
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are reported without being asked for
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _lost_output_code(error: OSError) -> int:
    """Return the exit code of a command whose output could not be written; a closed pipe is no error."""
    from lavis_lite.commands.errors import explain

    if isinstance(error, BrokenPipeError):
        return CLOSED_PIPE
    print(explain(error) or f"standard output: {error}", file=sys.stderr)
    return 1


def _tell(error: Exception, command: str | None, debug: bool) -> int:
    """Print what a person must know of an error: one line, or the traceback of a fault of ours; return 1."""
    from lavis_lite.commands.errors import explain

    line = explain(error)
    if line is None:
        traceback.print_exception(error)
        print(
            "This error was not expected, so it is probably a fault of lavis-lite: please report it with the "
            "lines above.",
            file=sys.stderr,
        )
        return 1
    rank = _rank_of_launch() if command in TRAINING else None
    if rank is not None and _first_rank_here_tells(error):
        return 1
    if debug:
        traceback.print_exception(error)
    print(line if rank is None else f"[rank {rank}] {line}", file=sys.stderr)
    return 1


def _rank_of_launch() -> str | None:
    """Return the rank that torchrun gave this process; RANK alone may have been set by anything."""
    launched = all(
        name in os.environ for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "MASTER_ADDR", "RANK")
    )
    return os.environ["RANK"] if launched and os.environ["WORLD_SIZE"] != "1" else None


def _first_rank_here_tells(error: Exception) -> bool:
    """Return whether another rank on this machine has the same error, and prints it."""
    from lavis_lite.common.config.schema import ConfigError
    from lavis_lite.common.registry import UnknownNameError
    from lavis_lite.runners.bad_data import TrainingError

    if os.environ.get("LOCAL_RANK", "0") == "0":
        return False
    # All ranks read the same config and files.
    is_shared = isinstance(error, TrainingError) and error.on_all_ranks
    return is_shared or isinstance(error, ConfigError | UnknownNameError)


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
            print(f"{stopped}; the state is saved and the same command goes on.", file=sys.stderr)
        return stopped.exit_code
    if is_first:
        print_table(folder)
    return 0
