"""Finetune from the pretrained drawn model and from scratch, at equal steps, over several seeds.

``bash run_scripts/run.sh pretrain_shapes`` comes before. Runs that are there are not run again,
and one that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TASKS = {
    "caption_shapes_ft": ("CIDEr", "METEOR", "object_accuracy"),
    "retrieval_shapes": ("txt_r1", "img_r1", "r_mean"),
}


def run_once(recipe: str, pretrained: str | None, seed: int, folder: Path) -> dict[str, float]:
    """Train and test `recipe`, from `pretrained` or from scratch, and return its numbers."""
    start = [f"model.pretrained={pretrained}"] if pretrained else ["model.load_pretrained=false"]
    options = [*start, f"run.seed={seed}", f"run.output_dir={folder}", "run.report=false"]
    command = [sys.executable, "train.py", "--cfg-path", f"projects/blip/train/{recipe}.yaml"]
    subprocess.run([*command, "--options", *options], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return json.loads((folder / "evaluate.json").read_text(encoding="utf-8"))["test"]


def show(values: list[float]) -> str:
    """Return mean and standard deviation over the seeds."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {spread:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pretrained", default="output/blip/pretrain_shapes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--output", type=Path, default=Path("output/benchmarks/pretraining_gain"))
    arguments = parser.parse_args()
    arms = {"scratch": None, "pretrained": arguments.pretrained}
    numbers: dict[tuple[str, str], list[dict[str, float]]] = {}
    for seed in arguments.seeds:
        for recipe in arguments.tasks:
            for arm, pretrained in arms.items():
                folder = arguments.output / f"{recipe}_{arm}_{seed}"
                numbers.setdefault((recipe, arm), []).append(run_once(recipe, pretrained, seed, folder))
    print(
        f"\n| task | metric | from scratch | from the pretrained model | over {len(arguments.seeds)} seeds |"
    )
    print("|---|---|---|---|---|")
    for recipe in arguments.tasks:
        for metric in TASKS[recipe]:
            scratch, pretrained = ([run[metric] for run in numbers[recipe, arm]] for arm in arms)
            wins = sum(b > a for a, b in zip(scratch, pretrained, strict=True))
            print(f"| {recipe} | {metric} | {show(scratch)} | {show(pretrained)} | better in {wins} |")


if __name__ == "__main__":
    main()
