"""Running our command lines as real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def train_command(run_file: Path, *options: str, script: str = "train.py", ranks: int = 1) -> list[str]:
    """Return the command that runs `run_file`, under torch.distributed.run where there are several ranks."""
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    command = [*launcher, str(REPOSITORY / script), "--cfg-path", str(run_file)]
    return [*command, "--options", *options] if options else command


def run(command: list[str], cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it said."""
    return subprocess.run(
        command,
        cwd=cwd or REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
