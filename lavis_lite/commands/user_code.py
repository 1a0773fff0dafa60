"""The user's own modules on the command line, and those that a run folder names."""

from __future__ import annotations

import argparse


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
    """Import what ``--import`` names and, with ``--trust-imports``, what the run folders name.

    Args:
        options: as `add_code_arguments` has them parsed.
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
