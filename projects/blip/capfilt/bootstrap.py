"""Run a loop of training and cleaning, each stage from the ones before it, and compare the results.

    python projects/blip/capfilt/bootstrap.py projects/blip/capfilt/bootstrap_shapes.yaml --seeds 1 2 3

Run it from the root of the repository: the paths in a loop's file start there. The same command
continues where it was stopped.
"""

from __future__ import annotations

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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lavis_lite.commands.arguments import Parser, positive_int, seed_number
from lavis_lite.common.config.layering import read_yaml
from lavis_lite.common.config.schema import ConfigError, parse
from lavis_lite.common.files import write_json
from lavis_lite.common.signals import exit_on_signals

MARKER = "stage.json"  # written into the folder of a stage that is done
Column = tuple[str, str]  # kind of result, metric


@dataclass
class Stage:
    """A run of a recipe.

    Attributes:
        recipe: its run file.
        options: settings over the run file; ``{name}`` in a value is the folder of the stage `name`.
    """

    recipe: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Table:
    """The comparison that is printed at the end.

    Attributes:
        arms: name of an arm -> kind of result -> stage that has it.
        metrics: kind of result -> metrics of its test split.
        baseline: the arm that the others are compared with.
    """

    arms: dict[str, dict[str, str]]
    metrics: dict[str, list[str]]
    baseline: str


@dataclass
class Loop:
    """The file of a loop.

    Attributes:
        output_dir: holds one folder for each seed, which holds one for each stage.
        stages: in the order in which they run. Only those that the table needs run.
        table: what is compared.
        base: file of another loop. Its stages come first; its other keys apply where this file has none.
        seeds: seeds of the runs.
        launcher: script that starts the processes; environment variables say how many.
    """

    output_dir: str
    stages: dict[str, Stage]
    table: Table
    base: str | None = None
    seeds: list[int] = field(default_factory=lambda: [42])
    launcher: str = "run_scripts/launch.sh"

    def check(self) -> list[tuple[str, str]]:
        """Return an error for each recipe, stage or arm that does not exist."""
        errors = []
        before: set[str] = set()
        for name, stage in self.stages.items():
            if not Path(stage.recipe).is_file():
                errors.append((f"stages.{name}.recipe", f"{stage.recipe}: no such file."))
            for key, value in stage.options.items():
                try:
                    str(value).format(**dict.fromkeys(before, ""))
                except (KeyError, IndexError, ValueError):
                    errors.append(
                        (f"stages.{name}.options", f"{key}: {value!r} names no stage before this one.")
                    )
            before.add(name)
        for arm, results in self.table.arms.items():
            for kind, stage_name in results.items():
                if stage_name not in self.stages:
                    errors.append((f"table.arms.{arm}.{kind}", f"there is no stage {stage_name!r}."))
                if kind not in self.table.metrics:
                    errors.append((f"table.metrics.{kind}", "is missing."))
        if self.table.baseline not in self.table.arms:
            errors.append(("table.baseline", f"there is no arm {self.table.baseline!r}."))
        return errors

    def folder(self, stage: str, seed: int) -> Path:
        """Return the output folder of a stage."""
        return Path(self.output_dir) / f"seed_{seed}" / stage

    def needed_stages(self) -> list[str]:
        """Return the stages that the table shows and those that they start from, in order."""
        needed = {stage for results in self.table.arms.values() for stage in results.values()}
        for name in reversed(self.stages):
            if name in needed:
                values = " ".join(str(value) for value in self.stages[name].options.values())
                needed |= {other for other in self.stages if f"{{{other}}}" in values}
        return [name for name in self.stages if name in needed]


def read_loop(path: Path) -> dict[Any, Any]:
    """Return the content of a loop's file, merged over that of its base.

    Raises:
        ConfigError: no such file, or not valid yaml.
    """
    content = OmegaConf.to_container(read_yaml(path), resolve=True)
    assert isinstance(content, dict)  # read_yaml returns a mapping
    if "base" not in content:
        return content
    base = read_loop(Path(content["base"]))
    return {**base, **content, "stages": {**base["stages"], **content.get("stages", {})}}


class Children:
    """The processes of running stages. After `stop`, none is started."""

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
        """Ask the running processes to save and end."""
        with self._lock:
            self._stopped = True
            for child in self.running:
                child.terminate()


def run_stage(loop: Loop, name: str, seed: int, children: Children) -> None:
    """Run a stage unless it is done; one that was stopped midway continues.

    Raises:
        ConfigError: the stage was done with other settings, or it fails.
    """
    stage, folder = loop.stages[name], loop.folder(name, seed)
    folders = {other: str(loop.folder(other, seed)) for other in loop.stages}
    options = {
        key: value.format(**folders) if isinstance(value, str) else value
        for key, value in stage.options.items()
    }
    made_with = json.loads(json.dumps({"recipe": stage.recipe, "options": options}))
    marker = folder / MARKER
    if marker.is_file():
        done_with = json.loads(marker.read_text(encoding="utf-8"))["made_with"]
        if done_with == made_with:
            return
        raise ConfigError(
            f"{folder}: this stage was done with other settings ({done_with}). Choose another output_dir, or "
            "remove that folder and those of the stages after it."
        )
    words = [f"{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in options.items()]
    words += [f"run.output_dir={folder}", f"run.seed={seed}"]
    command = ["bash", loop.launcher, "train.py", "--cfg-path", stage.recipe, "--options", *words]
    print(f"seed {seed}, {name}: {stage.recipe}", file=sys.stderr, flush=True)
    started = time.monotonic()
    code = children.run(command, {"PYTHON": sys.executable, **os.environ})
    if code:
        raise ConfigError(f"seed {seed}, stage {name}: ended with {code}; {folder}/run.log says why.")
    if int(os.environ.get("NODE_RANK", 0)) == 0:
        write_json({"made_with": made_with, "seconds": time.monotonic() - started}, marker)


def run_loop(loop: Loop, jobs: int) -> None:
    """Run the stages of every seed, `jobs` seeds side by side.

    Raises:
        ConfigError: a stage fails.
    """
    children = Children()

    def run_seed(seed: int) -> None:
        for name in loop.needed_stages():
            run_stage(loop, name, seed, children)

    with ThreadPoolExecutor(jobs) as executor:
        try:
            list(executor.map(run_seed, loop.seeds))
        except (SystemExit, KeyboardInterrupt):
            children.stop()
            raise


def comparison(loop: Loop) -> str:
    """Return the table of all arms: mean and standard deviation over the seeds that are done."""
    columns = [(kind, metric) for kind, metrics in loop.table.metrics.items() for metric in metrics]
    values = {arm: _results(loop, arm, columns) for arm in loop.table.arms}
    lines = ["| arm | seeds | " + " | ".join(f"{kind} {metric}" for kind, metric in columns) + " |"]
    lines.append("|" + "---|" * (len(columns) + 2))
    for arm, results in values.items():
        seeds = max((len(of_column) for of_column in results.values()), default=0)
        cells = [_mean_and_deviation(results[column]) for column in columns]
        lines.append(f"| {arm} | {seeds} | " + " | ".join(cells) + " |")
    baseline = values[loop.table.baseline]
    for arm, results in values.items():
        if arm != loop.table.baseline:
            gains = [_gain(baseline[column], results[column]) for column in columns]
            lines.append(f"| {arm} against {loop.table.baseline} | | " + " | ".join(gains) + " |")
    lines.append("")
    lines += [f"seed {seed}: {minutes:.0f} minutes in all" for seed, minutes in _minutes(loop).items()]
    return "\n".join(lines)


def _results(loop: Loop, arm: str, columns: Sequence[Column]) -> dict[Column, list[float]]:
    """Return the values of each column, one for each seed that is evaluated."""
    results: dict[Column, list[float]] = {column: [] for column in columns}
    for seed in loop.seeds:
        for kind, metric in columns:
            stage = loop.table.arms[arm].get(kind)
            file = loop.folder(stage, seed) / "evaluate.json" if stage else None
            if file is not None and file.is_file():
                splits = json.loads(file.read_text(encoding="utf-8"))
                results[kind, metric].append(next(iter(splits.values()))[metric])
    return results


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def _gain(before: Sequence[float], after: Sequence[float]) -> str:
    """Return the difference of the means with its standard error."""
    if not before or not after:
        return "-"
    gain = statistics.mean(after) - statistics.mean(before)
    if min(len(before), len(after)) < 2:
        return f"{gain:+.3f}"
    error = math.sqrt(statistics.variance(before) / len(before) + statistics.variance(after) / len(after))
    return f"{gain:+.3f} (standard error {error:.3f})"


def _minutes(loop: Loop) -> dict[int, float]:
    """Return how long the finished stages of each seed took."""
    minutes = {}
    for seed in loop.seeds:
        files = [loop.folder(name, seed) / MARKER for name in loop.stages]
        markers = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
        if markers:
            minutes[seed] = sum(marker["seconds"] for marker in markers) / 60
    return minutes


def main(words: Sequence[str] | None = None) -> int:
    """Run the stages that are not done, print the table, and return the exit code."""
    parser = Parser(prog="bootstrap.py", description="Run the stages of a loop and compare the results.")
    parser.add_argument("config", help="yaml file of the loop")
    parser.add_argument("--seeds", type=seed_number, nargs="+", help="in place of the file's")
    parser.add_argument("--output-dir", help="in place of the file's")
    parser.add_argument("--jobs", type=positive_int, default=1, help="how many seeds run side by side")
    parser.add_argument("--table", action="store_true", help="run nothing, only print the table")
    options = parser.parse_args(words)
    try:
        loop = parse(Loop, read_loop(Path(options.config)), where="", locate=lambda key: options.config)
        loop = replace(
            loop, seeds=options.seeds or loop.seeds, output_dir=options.output_dir or loop.output_dir
        )
        if not options.table:
            run_loop(loop, options.jobs)
    except ConfigError as error:
        print(f"ConfigError: {error}", file=sys.stderr)
        return 1
    print(comparison(loop))
    return 0


if __name__ == "__main__":
    with exit_on_signals():
        sys.exit(main())
