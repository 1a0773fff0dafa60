"""Files read by several processes with several workers: every sample once, also after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from processes import REPOSITORY, run

SCRIPT = """
import json, os, pathlib, sys, time
from torch.utils.data import Dataset
from lavis_lite.common import distributed
from lavis_lite.datasets.loading import TrainLoader

class Numbers(Dataset):
    def __len__(self):
        return 53
    def __getitem__(self, index):
        return {"image_id": index}

first, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
distributed.start("cpu")
rank = distributed.rank()
(folder / f"{rank}.pid").write_text(str(os.getpid()))
loader = TrainLoader(Numbers(), 4, seed=7, rank=rank, world_size=2, num_workers=2, drop_last=False)
for number, batch in enumerate(loader.epoch(5, first), start=first):
    ids = [] if batch.filler else batch.samples["image_id"]
    with (folder / f"{rank}.jsonl").open("a") as log:
        log.write(json.dumps([number, ids]) + "\\n")
    distributed.barrier()
    if len(sys.argv) > 3:
        time.sleep(0.2)
distributed.stop()
"""


def command(folder: Path, first: int, *more: str) -> list[str]:
    script = folder / "read.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return [*launcher, str(script), str(first), str(folder), *more]


def seen(folder: Path, below: int | None = None) -> list[int]:
    lines = [
        json.loads(line) for rank in (0, 1) for line in (folder / f"{rank}.jsonl").read_text().splitlines()
    ]
    return [index for number, ids in lines if below is None or number < below for index in ids]


def test_two_processes_with_two_workers_see_every_sample_once(tmp_path):
    said = run(command(tmp_path, 0))
    assert said.returncode == 0, said.stderr[-2000:]
    assert sorted(seen(tmp_path)) == list(range(53))


def test_after_a_kill_in_mid_epoch_still_every_sample_once(tmp_path):
    process = subprocess.Popen(command(tmp_path, 0, "slowly"), cwd=REPOSITORY)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        logs = [tmp_path / f"{rank}.jsonl" for rank in (0, 1)]
        if all(log.is_file() and len(log.read_text().splitlines()) >= 3 for log in logs):
            break
        time.sleep(0.05)
    process.kill()
    for rank in (0, 1):  # the launcher's children have sessions of their own
        os.kill(int((tmp_path / f"{rank}.pid").read_text()), signal.SIGKILL)
    process.wait()
    done = min(len((tmp_path / f"{rank}.jsonl").read_text().splitlines()) for rank in (0, 1))
    assert 3 <= done < 7
    before = seen(tmp_path, below=done)
    for rank in (0, 1):
        (tmp_path / f"{rank}.jsonl").unlink()
    said = run(command(tmp_path, done))
    assert said.returncode == 0, said.stderr[-2000:]
    assert sorted(before + seen(tmp_path)) == list(range(53))
