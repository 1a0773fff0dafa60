"""The report and the metrics of a run folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lavis_lite.commands.arguments import non_empty


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite report`` and ``lavis-lite metrics``."""
    report = commands.add_parser("report", help="write report.html of a run folder")
    report.add_argument("run", type=non_empty, help="output folder of a run")
    report.add_argument("--captions", type=non_empty, help="json that `caption` wrote, to show beside")
    report.set_defaults(execute=_execute_report)
    metrics = commands.add_parser("metrics", help="print the metrics of a run folder")
    metrics.add_argument("run", type=non_empty, help="output folder of a run")
    metrics.set_defaults(execute=_execute_metrics)


def _execute_report(options: argparse.Namespace) -> int:
    from lavis_lite.common.config.schema import ConfigError
    from lavis_lite.common.files import read_json
    from lavis_lite.report.run_report import write_run_report

    captions = Path(options.captions).expanduser() if options.captions else None
    if captions is not None and not isinstance(read_json(captions), list):
        raise ConfigError(f"{captions}: holds no list of captions; name a json file that `caption` wrote.")
    print(write_run_report(Path(options.run).expanduser(), captioned_folder_json=captions))
    return 0


def _execute_metrics(options: argparse.Namespace) -> int:
    from lavis_lite.commands.launch import print_table
    from lavis_lite.common.config.schema import ConfigError
    from lavis_lite.common.files import FileError
    from lavis_lite.common.results import read_results
    from lavis_lite.common.run_folder import RunFolder
    from lavis_lite.report.run_report import check_run_folder

    folder = RunFolder(Path(options.run).expanduser())
    check_run_folder(folder)
    if not folder.evaluate_file.is_file():
        raise ConfigError(
            f"{folder.evaluate_file}: there is no such file; the run is not evaluated yet. Evaluate it, or "
            "let its training end."
        )
    try:
        read_results(folder.evaluate_file)
    except FileError as error:
        raise ConfigError(f"{error} Evaluate the run again.") from error
    print_table(folder)
    return 0
