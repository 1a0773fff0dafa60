"""Run the chain of docs/reproduce_shapes.md and hold each result against what it must reach.

    python benchmarks/shapes_chain.py            # about 25 minutes on 2 cores
    python benchmarks/shapes_chain.py --check    # look at runs that are there

Ends with 1 where a result falls short. Runs that are complete are not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPES = (
    "pretrain_shapes",
    "retrieval_shapes",
    "caption_shapes_ft",
    "vqa_shapes",
    "nlvr_shapes",
    "classification_shapes",
    "video_retrieval_shapes",
    "video_qa_shapes",
)
# run folder, metric, what it must reach, what chance would give
GOALS = (
    ("retrieval_shapes", "txt_r1", 20 * 100 / 300, 100 / 300),
    ("retrieval_shapes", "img_r1", 20 * 100 / 300, 100 / 300),
    ("caption_shapes_ft", "CIDEr", 1.0, 0.3),
    ("vqa_shapes", "question: color", 90, 100 / 8),
    ("nlvr_shapes", "agg_metrics", 80, 50),
    ("classification_shapes", "agg_metrics", 95, 100 / 48),
    ("video_retrieval_shapes", "txt_r1", 20 * 100 / 200, 100 / 200),
    ("video_retrieval_shapes", "img_r1", 20 * 100 / 200, 100 / 200),
    ("video_qa_shapes", "question: color", 90, 100 / 8),
)


def run_all() -> None:
    """Run the recipes in order, on 2 processes of one thread each."""
    environment = {"NPROC": "2", "OMP_NUM_THREADS": "1", **os.environ}
    for recipe in RECIPES:
        started = time.monotonic()
        subprocess.run(
            ["bash", "run_scripts/run.sh", recipe],
            cwd=ROOT,
            env=environment,
            check=True,
            stdout=sys.stderr,
        )
        print(f"{recipe}: {(time.monotonic() - started) / 60:.1f} min", flush=True)


def check() -> bool:
    """Print each result beside its goal; tell whether all are reached."""
    print("| run | metric | result | goal | chance |\n|---|---|---|---|---|")
    reached = True
    for folder, metric, goal, chance in GOALS:
        file = ROOT / "output" / "blip" / folder / "evaluate.json"
        found = json.loads(file.read_text(encoding="utf-8"))["test"][metric]
        reached = reached and found >= goal
        print(f"| `{folder}` | {metric} | {found:.1f} | {goal:.1f} | {chance:.1f} |")
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="run nothing")
    if not parser.parse_args().check:
        run_all()
    return 0 if check() else 1


if __name__ == "__main__":
    sys.exit(main())
