"""The HTML page of a run: its settings, curves, metrics and samples."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lavis_lite.capfilt.output_reader import OutputReader
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import FileError, first_line, open_regular, read_json
from lavis_lite.common.logs.progress import clock_time
from lavis_lite.common.logs.writers import as_number
from lavis_lite.common.registry import nearest
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.report.charts import line_chart
from lavis_lite.report.gallery import Gallery, make_gallery
from lavis_lite.report.metrics_table import MetricsTable, metrics_table
from lavis_lite.report.page import write_page

NOTES_SHOWN = 50
YEAR_9999 = 253_370_764_800  # seconds since 1970; datetime reaches no further
# keys of the run section that are shown on top
RUN_FACTS = {
    "task": "Task",
    "max_epoch": "Epochs planned",
    "max_iters": "Steps planned",
    "batch_size_train": "Batch size a device",
    "accum_grad_iters": "Batches a step",
    "init_lr": "Learning rate",
    "amp": "Precision",
    "seed": "Seed",
}
Chart = dict[str, list[tuple[float, float]]]  # name of a line -> its points
LINE_HEAD = ("kind", "step", "epoch", "time", "split")


def write_run_report(
    run_folder: Path, *, images: int = 24, captioned_folder_json: Path | None = None
) -> Path:
    """Write report.html into `run_folder` and return its path.

    The page is one file that loads nothing from a network. It names the files that are missing or damaged.

    Args:
        run_folder: output folder of a run.
        images: how many pictures to show at most of each split and of the captioned folder.
        captioned_folder_json: list of {"image", "caption"}, image paths relative to its folder.

    Raises:
        NotADirectoryError: the folder does not exist.
        ConfigError: it is not a run folder; nothing is written into it.
        ValueError: `images` is less than 1.
    """
    run = RunFolder(Path(run_folder))
    check_run_folder(run)
    if images < 1:
        raise ValueError(f"images: expected at least 1 picture a split, found {images}.")
    return write_page("run_report.html", run.report_file, **_contents(run, images, captioned_folder_json))


def check_run_folder(run: RunFolder) -> None:
    """Check that `run` is the output folder of a run, even if files in it are damaged or missing.

    Raises:
        NotADirectoryError: it does not exist; the message names the nearest folder beside it.
        ConfigError: it is the folder of something else.
    """
    path = run.path
    if path.is_file():
        raise NotADirectoryError(f"{path}: is a file; name the output folder of a run.")
    if not path.is_dir():
        parent = path.absolute().parent
        folders = [folder.name for folder in parent.iterdir() if folder.is_dir()] if parent.is_dir() else []
        close = " or ".join(str(path.parent / name) for name in nearest(path.name, folders))
        hint = f"did you mean {close}?" if close else "name the output folder of a run."
        raise NotADirectoryError(f"{path}: there is no such run folder; {hint}")
    if OutputReader(path).is_begun():
        raise ConfigError(f"{path}: is not a run folder but one of capfilt; use `lavis-lite capfilt report`.")
    # The text, not the parsed config: the file may be damaged.
    has_config = re.search(r"^(model|run)\s*:", _raw_text(run.config_file), re.MULTILINE)
    if has_config or any(path.exists() for path in (run.log_file, run.evaluate_file, run.checkpoints)):
        return
    raise ConfigError(
        f"{path}: is not a run folder (no config.yaml of a run, no log.jsonl, no evaluate.json); name the "
        "output folder of a run."
    )


def _contents(run: RunFolder, images: int, captioned_folder_json: Path | None) -> dict[str, Any]:
    config, config_error = _read_config(run)
    log, log_error = _read_log(run)
    train_charts, metric_charts = _charts(log)
    notes = [_note(line) for line in log if line.get("kind") == "note"]
    galleries = [
        _gallery(f"Samples of {split}", path, (run.path, Path()), images, f"{path.parent.name}/{path.name}")
        for split, path in sorted(_result_files(run.results).items())
    ]
    if captioned_folder_json is not None:
        path = Path(captioned_folder_json)
        title = f"Captioned folder {path.parent.resolve().name}"
        galleries.append(_gallery(title, path, (path.parent, Path()), images, path.name))
    return {
        "title": _title(run, config),
        "folder": run.path.resolve().name,
        "facts": _facts(config, log),
        "config_text": _raw_text(run.config_file),
        "config_error": config_error,
        "log_error": log_error,
        "metrics": _metrics(run, log),
        "train_charts": train_charts,
        "metric_charts": metric_charts,
        "notes": notes[-NOTES_SHOWN:],
        "notes_left_out": max(0, len(notes) - NOTES_SHOWN),
        "galleries": galleries,
    }


def _read_config(run: RunFolder) -> tuple[dict[str, Any], str | None]:
    if not run.config_file.is_file():
        return {}, f"The run left no {run.config_file.name}."
    try:
        config = run.config()
    except Exception as error:  # the parsers of yaml and of interpolations raise many types
        return {}, f"{run.config_file.name} could not be read: {first_line(error)}"
    return (config, None) if isinstance(config, dict) else ({}, f"{run.config_file.name} holds no settings.")


def _raw_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError as error:
        return f"({path.name} could not be read: {first_line(error)})"


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}


def _title(run: RunFolder, config: Mapping[str, Any]) -> str:
    arch = _section(config, "model").get("arch")
    if not arch:
        return run.path.resolve().name
    datasets = ", ".join(map(str, _section(config, "datasets")))
    return f"{arch} on {datasets}" if datasets else str(arch)


def _facts(config: Mapping[str, Any], log: list[dict[str, Any]]) -> list[tuple[str, str]]:
    model, run = _section(config, "model"), _section(config, "run")
    facts = [
        ("Model", " / ".join(str(model[key]) for key in ("arch", "model_type") if model.get(key))),
        ("Data sets", ", ".join(map(str, _section(config, "datasets")))),
        *((label, str(run[key])) for key, label in RUN_FACTS.items() if run.get(key) is not None),
    ]
    steps = [step for line in log if (step := _number(line, "step")) is not None]
    if steps:
        facts.append(("Steps done", f"{max(steps):,.0f}"))
    epochs = [epoch for line in log if (epoch := _number(line, "epoch")) is not None]
    if epochs:
        facts.append(("Last epoch", f"{max(epochs):.0f}"))
    times = [time for line in log if (time := _number(line, "time")) is not None and 0 <= time < YEAR_9999]
    if times:
        start = datetime.fromtimestamp(min(times), tz=timezone.utc)
        facts.append(("First log line", f"{start:%Y-%m-%d %H:%M} UTC"))
        facts.append(("From first to last line", f"{clock_time(max(times) - min(times))} (h:mm:ss)"))
    return [(label, text) for label, text in facts if text]


def _read_log(run: RunFolder) -> tuple[list[dict[str, Any]], str | None]:
    """Return the lines of the log and which ones are damaged; a last line without an end is left out."""
    name = run.log_file.name
    if not run.log_file.exists():
        return [], f"The run left no {name}, so there are no curves."
    try:
        with open_regular(run.log_file) as file:
            lines = file.read().split(b"\n")[:-1]
    except (FileError, OSError) as error:
        return [], f"{name} could not be read: {first_line(error)}"
    log, damaged = [], []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            log.append(record)
        else:
            damaged.append(number)
    if not damaged:
        return log, None
    more = f", and neither are {len(damaged) - 1} lines after it" if len(damaged) > 1 else ""
    return log, f"{name}: line {damaged[0]} is not JSON{more}; the page shows the others."


def _number(line: Mapping[str, Any], name: str) -> float | None:
    value = as_number(line.get(name))
    return value if value is not None and math.isfinite(value) else None


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    values = {name: as_number(value) for name, value in line.items() if name not in LINE_HEAD}
    return {name: value for name, value in values.items() if value is not None}


def _charts(log: list[dict[str, Any]]) -> tuple[list[Markup], list[Markup]]:
    """Return the charts of training, with all losses in the first, and of each metric, one line per split."""
    losses: Chart = {}
    others: Chart = {}
    metrics: dict[str, Chart] = {}
    for line in log:
        step = _number(line, "step")
        if step is None:
            continue
        for name, value in _numbers(line).items():
            if line.get("kind") == "train":
                chart, series = losses if "loss" in name else others, name
            elif line.get("kind") in ("valid", "test"):
                chart, series = metrics.setdefault(name, {}), str(line.get("split", line["kind"]))
            else:
                continue
            chart.setdefault(series, []).append((step, value))
    train = {"Training loss": losses} if losses else {}
    train |= {name: {name: points} for name, points in others.items()}
    # line_chart returns markup with all names escaped
    drawn = [
        [Markup(line_chart(chart, title, x_label="step")) for title, chart in charts.items()]
        for charts in (train, metrics)
    ]
    return drawn[0], drawn[1]


def _note(line: Mapping[str, Any]) -> tuple[str, str]:
    values = {name: value for name, value in line.items() if name not in ("kind", "step", "time")}
    text = "; ".join(f"{name}: {value}" for name, value in values.items())
    return str(line.get("step", "")), text


def _metrics(run: RunFolder, log: list[dict[str, Any]]) -> MetricsTable:
    by_split, error = _read_json(run.evaluate_file, dict)
    if by_split is not None:
        return metrics_table(by_split)
    lines = [line for line in log if line.get("kind") in ("valid", "test")]
    latest = {str(line.get("split", line["kind"])): _numbers(line) for line in lines}
    if latest:
        error = f"{error} These are the latest scores that were logged during training."
    return metrics_table(latest, error)


def _gallery(title: str, path: Path, roots: Sequence[Path], images: int, source: str) -> Gallery:
    records, error = _read_json(path, list)
    if records is None:
        return Gallery(title, error=error)
    return make_gallery(title, records, roots, images, source)


def _result_files(folder: Path) -> dict[str, Path]:
    """Return for each split its report file, or else its newest result."""
    newest: dict[str, tuple[tuple[float, bool], Path]] = {}
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        match = re.fullmatch(r"(.+?)(?:_epoch(\d+))?(_report)?\.json", path.name)
        if match is None or re.search(r"_rank\d+$", path.stem):
            continue
        split, epoch, report = match.groups()
        # without an epoch in its name, a file is of the final evaluation
        rank = (float(epoch) if epoch else math.inf, report is not None)
        if split not in newest or rank > newest[split][0]:
            newest[split] = (rank, path)
    return {split: path for split, (_, path) in newest.items()}


def _read_json(path: Path, kind: type) -> tuple[Any, str | None]:
    """Return the content of `path`, or None and the reason."""
    if not path.exists():
        return None, f"There is no {path.name} yet."
    try:
        content = read_json(path)
    except (FileError, OSError) as error:
        return None, f"{path.name} could not be read: {str(error).removeprefix(f'{path}: ')}"
    if not isinstance(content, kind):
        return None, f"{path.name} holds a {type(content).__name__} where a {kind.__name__} belongs."
    return content, None
