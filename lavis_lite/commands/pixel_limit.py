"""The command line's setting for large photographs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from lavis_lite.commands.arguments import positive_int


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add ``--max-pixels``, which takes effect when the command line is read."""
    parser.add_argument(
        "--max-pixels",
        type=positive_int,
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
        from lavis_lite.common.media.images import set_max_pixels

        setattr(namespace, self.dest, values)
        set_max_pixels(int(str(values)))
