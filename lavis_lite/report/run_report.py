"""One HTML page that shows what a run was, how it went and what it says about pictures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lavis_lite.common.progress import clock_time
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.common.writers import as_number, read_jsonl
from lavis_lite.report.charts import line_chart
from lavis_lite.report.gallery import Gallery, make_gallery
from lavis_lite.report.metrics_table import MetricsTable, metrics_table
from lavis_lite.report.page import write_page

NOTES_SHOWN = 50
# keys of the config's run section that say the most, in the order shown
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
LINE_HEAD = ("kind", "step", "epoch", "time", "split")


def write_run_report(
    run_folder: Path, *, images: int = 24, captioned_folder_json: Path | None = None
) -> Path:
    """Write report.html into `run_folder` and return its path.

    The page holds everything it shows and asks nothing of a network. What the run has not left
    (yet) is named in the page.

    Args:
        images: most pictures to show of each split and of the captioned folder.
        captioned_folder_json: list of {"image", "caption"}, image paths relative to its folder.

    Raises:
        NotADirectoryError: there is no such run folder.
        ValueError: `images` is less than 1.
    """
    run = RunFolder(Path(run_folder))
    if not run.path.is_dir():
        raise NotADirectoryError(f"{run.path}: there is no such run folder; name the output folder of a run.")
    if images < 1:
        raise ValueError(f"images: expected at least 1 picture a split, found {images}.")
    return write_page("run_report.html", run.report_file, **_contents(run, images, captioned_folder_json))


def _contents(run: RunFolder, images: int, captioned_folder_json: Path | None) -> dict[str, Any]:
    config, config_problem = _read_config(run)
    log, log_problem = _read_log(run)
    train_charts, metric_charts = _charts(log)
    notes = [_note(line) for line in log if line.get("kind") == "note"]
    galleries = _split_galleries(run, images)
    if captioned_folder_json is not None:
        galleries.append(_captioned_folder(Path(captioned_folder_json), images))
    return {
        "title": _title(run, config),
        "folder": run.path.resolve().name,
        "facts": _facts(config, log),
        "config_text": _raw_text(run.config_file),
        "config_problem": config_problem,
        "log_problem": log_problem,
        "metrics": _metrics(run, log),
        "train_charts": train_charts,
        "metric_charts": metric_charts,
        "notes": notes[-NOTES_SHOWN:],
        "notes_left_out": max(0, len(notes) - NOTES_SHOWN),
        "galleries": galleries,
    }


# What the run was


def _read_config(run: RunFolder) -> tuple[dict[str, Any], str | None]:
    if not run.config_file.is_file():
        return {}, f"The run left no {run.config_file.name}."
    try:
        config = run.config()
    except Exception as error:  # the parsers of yaml and of interpolations raise many kinds
        return {}, f"{run.config_file.name} could not be read: {error}"
    return (config, None) if isinstance(config, dict) else ({}, f"{run.config_file.name} holds no settings.")


def _raw_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


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
    steps = [line["step"] for line in log if isinstance(line.get("step"), int)]
    if steps:
        facts.append(("Steps done", f"{max(steps):,}"))
    epochs = [line["epoch"] for line in log if isinstance(line.get("epoch"), int)]
    if epochs:
        facts.append(("Last epoch", str(max(epochs))))
    times = [line["time"] for line in log if isinstance(line.get("time"), int | float)]
    if times:
        start = datetime.fromtimestamp(min(times), tz=timezone.utc)
        facts.append(("First log line", f"{start:%Y-%m-%d %H:%M} UTC"))
        facts.append(("From first to last line", f"{clock_time(max(times) - min(times))} (h:mm:ss)"))
    return [(label, text) for label, text in facts if text]


# How it went


def _read_log(run: RunFolder) -> tuple[list[dict[str, Any]], str | None]:
    if not run.log_file.is_file():
        return [], f"The run left no {run.log_file.name}, so there are no curves."
    try:
        return read_jsonl(run.log_file), None
    except ValueError as error:
        return [], str(error)


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    values = {name: as_number(value) for name, value in line.items() if name not in LINE_HEAD}
    return {name: value for name, value in values.items() if value is not None}


def _charts(log: list[dict[str, Any]]) -> tuple[list[Markup], list[Markup]]:
    """Return the charts of training, all losses in the first, and of each metric, a line a split."""
    losses: dict[str, list[tuple[float, float]]] = {}
    others: dict[str, list[tuple[float, float]]] = {}
    metrics: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in log:
        step = as_number(line.get("step"))
        if step is None:
            continue
        for name, value in _numbers(line).items():
            if line.get("kind") == "train":
                group = losses if "loss" in name else others
                group.setdefault(name, []).append((step, value))
            elif line.get("kind") in ("valid", "test"):
                split = str(line.get("split", line["kind"]))
                metrics.setdefault(name, {}).setdefault(split, []).append((step, value))
    train = [_chart(losses, "Training loss")] if losses else []
    train += [_chart({name: points}, name) for name, points in others.items()]
    return train, [_chart(by_split, name) for name, by_split in metrics.items()]


def _chart(series: Mapping[str, list[tuple[float, float]]], title: str) -> Markup:
    return Markup(line_chart(series, title, x_label="step", y_label=""))  # line_chart has escaped it


def _note(line: Mapping[str, Any]) -> tuple[str, str]:
    values = {name: value for name, value in line.items() if name not in ("kind", "step", "time")}
    text = "; ".join(f"{name}: {value}" for name, value in values.items())
    return str(line.get("step", "")), text


def _metrics(run: RunFolder, log: list[dict[str, Any]]) -> MetricsTable:
    by_split, problem = _read_json(run.evaluate_file, dict)
    if by_split is not None:
        return metrics_table(by_split)
    last = {
        str(line.get("split", line["kind"])): _numbers(line)
        for line in log
        if line.get("kind") in ("valid", "test")
    }
    if last:
        problem = f"{problem} These are the latest scores that were logged during training."
    return metrics_table(last, problem)


# What it says about pictures


def _split_galleries(run: RunFolder, images: int) -> list[Gallery]:
    galleries = []
    for split, path in sorted(_result_files(run.results).items()):
        title = f"Samples of {split}"
        records, problem = _read_json(path, list)
        if records is None:
            galleries.append(Gallery(title, problem=problem))
        else:
            roots = (run.path, Path())
            galleries.append(make_gallery(title, records, roots, images, f"{path.parent.name}/{path.name}"))
    return galleries


def _result_files(folder: Path) -> dict[str, Path]:
    """Choose for each split its report file, or else its newest result."""
    chosen: dict[str, tuple[tuple[float, bool], Path]] = {}
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        match = re.fullmatch(r"(.+?)(?:_epoch(\d+))?(_report)?\.json", path.name)
        if match is None or re.search(r"_rank\d+$", path.stem):
            continue
        split, epoch, report = match.groups()
        # without an epoch in its name it is from the final evaluation
        rank = (float(epoch) if epoch else math.inf, report is not None)
        if split not in chosen or rank > chosen[split][0]:
            chosen[split] = (rank, path)
    return {split: path for split, (_, path) in chosen.items()}


def _captioned_folder(path: Path, images: int) -> Gallery:
    title = f"Captioned folder {path.parent.resolve().name}"
    records, problem = _read_json(path, list)
    if records is None:
        return Gallery(title, problem=problem)
    return make_gallery(title, records, (path.parent, Path()), images, path.name)


def _read_json(path: Path, kind: type) -> tuple[Any, str | None]:
    """Return the content of `path`, or None and why there is none."""
    if not path.is_file():
        return None, f"There is no {path.name} yet."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return None, f"{path.name} could not be read: {error}"
    if not isinstance(content, kind):
        return None, f"{path.name} holds a {type(content).__name__} where a {kind.__name__} belongs."
    return content, None
