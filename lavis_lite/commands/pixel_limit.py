"""The command line's setting for large photographs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add ``--max-pixels``, which takes effect when the command line is read."""
    parser.add_argument(
        "--max-pixels",
        type=_pixels,
        action=_SetMaxPixels,
        metavar="N",
        help="accept images of up to N pixels, width times height, in place of 89478485; JPEGs of up to 2.5 "
        "times as many are read at half their width and height",
    )


class _SetMaxPixels(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        from lavis_lite.common.images import set_max_pixels

        setattr(namespace, self.dest, values)
        set_max_pixels(int(str(values)))


def _pixels(text: str) -> int:
    pixels = int(text)
    if pixels < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {pixels}")
    return pixels


_pixels.__name__ = "number of pixels"  # what argparse calls a value that is no number
