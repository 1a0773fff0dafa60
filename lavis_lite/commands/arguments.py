"""The parser of the command line, types of its values, and options that several commands have."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from lavis_lite.common.registry import suggest

# torch.manual_seed takes no more.
LARGEST_SEED = 2**63 - 1
# A larger count is a mistake, and would end in an error of torch's or of the system's.
LARGEST_COUNT = 2**31 - 1


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and name the nearest choice; subcommands inherit it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Print the error and how to get help, and exit with 2."""
        match = re.fullmatch(r"(.*: invalid choice: )'(.*)' \(choose from (.*)\)", message)
        if match is not None:
            choices = [choice.strip("' ") for choice in match[3].split(",")]
            message = f"{match[1]}{match[2]!r}.{suggest(match[2], choices)}"
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help tells more)\n")


def _whole_number(least: int, most: int = LARGEST_COUNT) -> Callable[[str], int]:
    """Return the type of an argument that is a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        expected = f"expected a whole number of at least {least}, found {text!r}"
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(expected) from None
        if number < least:
            raise argparse.ArgumentTypeError(expected)
        if number > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}, found {text!r}")
        return number

    return parse


def _number(expected: str, allowed: Callable[[float], bool]) -> Callable[[str], float]:
    """Return the type of an argument that is a number which `allowed` accepts."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not allowed(number):  # NaN is in no range
            raise argparse.ArgumentTypeError(f"expected {expected}, found {text!r}")
        return number

    return parse


positive_int = _whole_number(1)
non_negative_int = _whole_number(0)
seed_number = _whole_number(0, LARGEST_SEED)
finite_float = _number("a number", math.isfinite)
fraction = _number("a number from 0 to 1", lambda value: 0 <= value <= 1)
probability = _number("a number above 0 and at most 1", lambda value: 0 < value <= 1)
non_negative_float = _number("a number of at least 0", lambda value: 0 <= value < math.inf)


def non_empty(text: str) -> str:
    """Return `text` if it is not blank, such as the name of a file."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add ``--max-pixels``, which takes effect when the command line is parsed."""

    def pixels(text: str) -> int:
        from lavis_lite.common.media.images import set_max_pixels

        number = positive_int(text)
        set_max_pixels(number)
        return number

    parser.add_argument(
        "--max-pixels",
        type=pixels,
        metavar="N",
        help="accept images of up to N pixels, width times height, in place of 89478485; JPEGs of up to 2.5 "
        "times as many are read at half their width and height",
    )


def add_import_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--import``."""
    parser.add_argument(
        "--import",
        dest="imports",
        nargs="+",
        default=[],
        action="extend",
        metavar="MODULE",
        help="your own modules: dotted names, .py files, or folders with an __init__.py as ./folder",
    )


def add_code_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--import`` and ``--trust-imports``, for commands that open a run folder."""
    add_import_argument(parser)
    parser.add_argument(
        "--trust-imports",
        action="store_true",
        help="run the modules that the config of the run folder imports",
    )


def import_user_code(options: argparse.Namespace, *checkpoints: str | None) -> None:
    """Import the modules of ``--import`` and, with ``--trust-imports``, those that run folders name.

    Args:
        options: parsed options of `add_code_arguments`.
        checkpoints: addresses of weights; those that are run folders count.

    Raises:
        ConfigError: a module or a file that does not exist.
    """
    from lavis_lite.common.config.user_modules import import_modules
    from lavis_lite.common.run_folder import RunFolder

    import_modules(options.imports)
    for checkpoint in filter(None, checkpoints if options.trust_imports else ()):
        run = RunFolder.at(checkpoint)
        if run is not None:
            run.import_modules(trust_imports=True)
