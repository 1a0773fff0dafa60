"""Looking into the folders of runs: what they left, what must be equal, and killing them midway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from lavis_lite.common.logs.writers import read_jsonl

# Log values that are measured, not computed.
MEASURED = {"time", "images_per_second", "tokens_per_second", "data_wait_share", "peak_memory_gib"}


def final_checkpoint(output: Path) -> dict[str, Any]:
    newest = sorted((output / "checkpoints").glob("checkpoint_[0-9]*.pth"))[-1]
    return torch.load(newest, weights_only=True)


def losses(output: Path) -> list[float]:
    return [line["loss"] for line in read_jsonl(output / "log.jsonl") if line["kind"] == "train"]


def assert_identical(left: Any, right: Any, path: str = "") -> None:
    """Compare nested containers bit for bit."""
    assert type(left) is type(right), path
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), path
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            assert_identical(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), path
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_identical(a, b, f"{path}[{index}]")
    else:
        assert left == right, path


def comparable(output: Path) -> dict[str, Any]:
    """Return everything of a run that must be the same after a kill; times and folder names are not."""
    content = final_checkpoint(output)
    content["config"]["run"].pop("output_dir")
    log = [{k: v for k, v in line.items() if k not in MEASURED} for line in read_jsonl(output / "log.jsonl")]
    results = {file.name: json.loads(file.read_text()) for file in sorted((output / "result").glob("*.json"))}
    return {
        "checkpoint": content,
        "log": log,
        "results": results,
        "metrics": json.loads((output / "evaluate.json").read_text()),
    }


def kill_at_step(command: list[str], output: Path, step: int) -> None:
    """Start a run and SIGKILL it, with its workers, once it has logged `step`, wherever it then is."""
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    log = output / "log.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        lines = log.read_text().splitlines() if log.exists() else []
        if any(f'"step": {number},' in line for line in lines for number in range(step, step + 5)):
            break
        time.sleep(0.002)
    assert process.poll() is None, f"the run ended before step {step} could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
