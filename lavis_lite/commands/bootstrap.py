"""The whole loop as one command: stages of training and cleaning, each from the ones before it."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis_lite.commands.arguments import positive_int, seed_number

MARKER = "stage.json"


@dataclass
class Stage:
    """A run of a recipe.

    Attributes:
        recipe: its config.
        options: of the config; ``{name}`` in a value is the folder of the stage called name.
    """

    recipe: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Table:
    """What is compared at the end.

    Attributes:
        arms: name of an arm -> kind of result -> stage that has it.
        metrics: kind of result -> metrics of its test split.
        baseline: the arm that others are compared with.
    """

    arms: dict[str, dict[str, str]]
    metrics: dict[str, list[str]]
    baseline: str


@dataclass
class Bootstrap:
    """A config of the loop.

    Attributes:
        output_dir: each seed has a folder there, and each stage one in it.
        stages: in the order in which they run. Those that the table needs do.
        base: another loop whose stages come before, and whose other keys hold where this file has none.
        seeds: of the runs.
        launcher: script that starts the processes; the environment says how many.
    """

    output_dir: str
    stages: dict[str, Stage]
    table: Table
    base: str | None = None
    seeds: list[int] = field(default_factory=lambda: [42])
    launcher: str = "run_scripts/launch.sh"

    def check(self) -> list[tuple[str, str]]:
        """Return complaints about stages that are not there."""
        complaints = []
        before: set[str] = set()
        for name, stage in self.stages.items():
            if not Path(stage.recipe).is_file():
                complaints.append((f"stages.{name}.recipe", f"{stage.recipe}: no such file."))
            for key, value in stage.options.items():
                try:
                    str(value).format(**dict.fromkeys(before, ""))
                except (KeyError, IndexError, ValueError):
                    complaints.append(
                        (f"stages.{name}.options", f"{key}: {value!r} names no stage before this one.")
                    )
            before.add(name)
        for arm, results in self.table.arms.items():
            for kind, stage in results.items():
                if stage not in self.stages:
                    complaints.append((f"table.arms.{arm}.{kind}", f"there is no stage {stage!r}."))
                if kind not in self.table.metrics:
                    complaints.append((f"table.metrics.{kind}", "is missing."))
        if self.table.baseline not in self.table.arms:
            complaints.append(("table.baseline", f"there is no arm {self.table.baseline!r}."))
        return complaints


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite bootstrap``."""
    parser = commands.add_parser(
        "bootstrap", help="run the stages of a loop, and compare what came of it", allow_abbrev=False
    )
    parser.add_argument("config", help="yaml file of the loop")
    parser.add_argument("--seeds", type=seed_number, nargs="+", help="in place of the config's")
    parser.add_argument("--output-dir", help="in place of the config's")
    parser.add_argument("--jobs", type=positive_int, default=1, help="seeds that run side by side")
    parser.add_argument("--table", action="store_true", help="run nothing; print the table of what is there")
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Run what is not done, and print the table."""
    from dataclasses import replace

    from lavis_lite.common.config.schema import parse

    config = parse(Bootstrap, read_loop(Path(options.config)), where="", locate=lambda key: options.config)
    changes = {"seeds": options.seeds, "output_dir": options.output_dir}
    config = replace(config, **{key: value for key, value in changes.items() if value})
    if not options.table:
        children = Children()
        with ThreadPoolExecutor(options.jobs) as side_by_side:
            try:
                list(side_by_side.map(lambda seed: run_seed(config, seed, children), config.seeds))
            except (SystemExit, KeyboardInterrupt):
                children.stop()
                raise
    print(table(config))
    return 0


def read_loop(path: Path) -> dict[str, Any]:
    """Return the content of a loop's file, over that of its base.

    Raises:
        ConfigError: no such file, or no valid yaml.
    """
    from omegaconf import OmegaConf

    from lavis_lite.common.config.layering import read_yaml

    content = OmegaConf.to_container(read_yaml(path), resolve=True)
    if "base" not in content:
        return content
    before = read_loop(Path(content["base"]))
    return {**before, **content, "stages": {**before["stages"], **content.get("stages", {})}}


def needed_stages(config: Bootstrap) -> list[str]:
    """Return the stages that the table shows, and those that they start from, in order."""
    needed = {stage for results in config.table.arms.values() for stage in results.values()}
    for name in reversed(config.stages):
        if name in needed:
            values = " ".join(str(value) for value in config.stages[name].options.values())
            needed |= {other for other in config.stages if f"{{{other}}}" in values}
    return [name for name in config.stages if name in needed]


def folder_of(config: Bootstrap, name: str, seed: int) -> Path:
    """Return where a stage's run lies."""
    return Path(config.output_dir) / f"seed_{seed}" / name


class Children:
    """The processes of the stages that run; a stop is handed on to them, and none starts after it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run a command to its end, its output on standard error, and return its exit code."""
        with self._lock:
            if self._stopped:
                return 128 + signal.SIGTERM
            child = subprocess.Popen(command, env=environment, stdout=sys.stderr)
            self.running.add(child)
        code = child.wait()
        with self._lock:
            self.running.discard(child)
        return code

    def stop(self) -> None:
        """Let the running processes save and end; start no more."""
        with self._lock:
            self._stopped = True
            for child in self.running:
                child.terminate()


def run_seed(config: Bootstrap, seed: int, children: Children) -> None:
    """Run what the table needs of a seed, in order.

    Raises:
        ConfigError: of a stage.
    """
    for name in needed_stages(config):
        run_stage(config, name, seed, children)


def run_stage(config: Bootstrap, name: str, seed: int, children: Children) -> None:
    """Run a stage, unless it is done. Killed in the middle, it goes on at the next call.

    Raises:
        ConfigError: it was done with other settings, or it fails.
    """
    from lavis_lite.common.config.schema import ConfigError
    from lavis_lite.common.files import write_json

    stage = config.stages[name]
    folder = folder_of(config, name, seed)
    folders = {other: str(folder_of(config, other, seed)) for other in config.stages}
    options = {key: _filled(value, folders) for key, value in stage.options.items()}
    made_with = json.loads(json.dumps({"recipe": stage.recipe, "options": options}))
    marker = folder / MARKER
    if marker.is_file():
        held = json.loads(marker.read_text(encoding="utf-8"))
        if held["made_with"] == made_with:
            return
        raise ConfigError(
            f"{folder}: this stage was done with other settings ({held['made_with']}). Choose another "
            "output_dir, or remove that folder and those of the stages after it."
        )
    words = [f"{key}={_word(value)}" for key, value in options.items()]
    words += [f"run.output_dir={folder}", f"run.seed={seed}"]
    command = ["bash", config.launcher, "train.py", "--cfg-path", stage.recipe, "--options", *words]
    print(f"seed {seed}, {name}: {stage.recipe}", file=sys.stderr, flush=True)
    started = time.monotonic()
    environment = {"PYTHON": sys.executable, **os.environ}
    code = children.run(command, environment)
    if code:
        raise ConfigError(f"seed {seed}, stage {name}: ended with {code}; {folder}/run.log says why.")
    if int(os.environ.get("NODE_RANK", 0)) == 0:
        write_json({"made_with": made_with, "seconds": time.monotonic() - started}, marker)


def _filled(value: Any, folders: Mapping[str, str]) -> Any:
    return value.format(**folders) if isinstance(value, str) else value


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def table(config: Bootstrap) -> str:
    """Return the results of the arms, mean and standard deviation over the seeds that are done."""
    columns = [(kind, metric) for kind, metrics in config.table.metrics.items() for metric in metrics]
    values = {arm: _results(config, arm, columns) for arm in config.table.arms}
    lines = ["| arm | seeds | " + " | ".join(f"{kind} {metric}" for kind, metric in columns) + " |"]
    lines.append("|" + "---|" * (len(columns) + 2))
    for arm, results in values.items():
        seeds = max((len(own) for own in results.values()), default=0)
        lines.append(f"| {arm} | {seeds} | " + " | ".join(_shown(results[c]) for c in columns) + " |")
    base = values[config.table.baseline]
    for arm, results in values.items():
        if arm != config.table.baseline:
            gains = [_gain(base[column], results[column]) for column in columns]
            lines.append(f"| {arm} against {config.table.baseline} | | " + " | ".join(gains) + " |")
    lines.append("")
    lines += [f"seed {seed}: {minutes:.0f} minutes in all" for seed, minutes in _minutes(config).items()]
    return "\n".join(lines)


def _results(
    config: Bootstrap, arm: str, columns: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {column: [] for column in columns}
    for seed in config.seeds:
        for kind, metric in columns:
            stage = config.table.arms[arm].get(kind)
            file = folder_of(config, stage, seed) / "evaluate.json" if stage else None
            if file is not None and file.is_file():
                splits = json.loads(file.read_text(encoding="utf-8"))
                found[kind, metric].append(next(iter(splits.values()))[metric])
    return found


def _shown(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def _gain(before: Sequence[float], after: Sequence[float]) -> str:
    """Say how much better the second is, with the standard error of the difference of the means."""
    if not before or not after:
        return "-"
    gain = statistics.mean(after) - statistics.mean(before)
    if min(len(before), len(after)) < 2:
        return f"{gain:+.3f}"
    error = math.sqrt(statistics.variance(before) / len(before) + statistics.variance(after) / len(after))
    return f"{gain:+.3f} (standard error {error:.3f})"


def _minutes(config: Bootstrap) -> dict[int, float]:
    found = {}
    for seed in config.seeds:
        markers = [folder_of(config, name, seed) / MARKER for name in config.stages]
        there = [json.loads(file.read_text(encoding="utf-8")) for file in markers if file.is_file()]
        if there:
            found[seed] = sum(marker["seconds"] for marker in there) / 60
    return found
