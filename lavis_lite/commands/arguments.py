"""Types of command-line values, each refused in one line where it cannot be."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from lavis_lite.common.registry import suggest

# torch.manual_seed takes no more.
LARGEST_SEED = 2**63 - 1
# More cannot be meant, and would end in an error of torch's or of the system's.
LARGEST_COUNT = 2**31 - 1


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and that names the nearest choice; subcommands inherit it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and where to read more, and exit with 2."""
        self.exit(2, f"{self.prog}: error: {_with_nearest(message)} ({self.prog} --help tells more)\n")


def _with_nearest(message: str) -> str:
    match = re.fullmatch(r"(.*: invalid choice: )'(.*)' \(choose from (.*)\)", message)
    if match is None:
        return message
    choices = [choice.strip("' ") for choice in match[3].split(",")]
    return f"{match[1]}{match[2]!r}.{suggest(match[2], choices)}"


def positive_int(text: str) -> int:
    """Return a whole number of at least 1."""
    return _whole_number(text, 1, LARGEST_COUNT)


def non_negative_int(text: str) -> int:
    """Return a whole number of at least 0."""
    return _whole_number(text, 0, LARGEST_COUNT)


def seed_number(text: str) -> int:
    """Return a seed, which torch takes from 0 to 2**63 - 1."""
    return _whole_number(text, 0, LARGEST_SEED)


def finite_float(text: str) -> float:
    """Return a number that is neither NaN nor infinite."""
    return _number(text, math.isfinite, "a number")


def fraction(text: str) -> float:
    """Return a number from 0 to 1."""
    return _number(text, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def probability(text: str) -> float:
    """Return a number above 0, and at most 1."""
    return _number(text, lambda value: 0 < value <= 1, "a number above 0 and at most 1")


def non_negative_float(text: str) -> float:
    """Return a finite number of at least 0."""
    return _number(text, lambda value: 0 <= value < math.inf, "a number of at least 0")


def non_empty(text: str) -> str:
    """Return a text with something in it, such as the name of a file."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _whole_number(text: str, least: int, most: int) -> int:
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


def _number(text: str, allowed: Callable[[float], bool], expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not allowed(number):  # no range holds NaN
        raise argparse.ArgumentTypeError(f"expected {expected}, found {text!r}")
    return number
