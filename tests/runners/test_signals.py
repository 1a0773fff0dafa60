"""Signals go to whole process groups: the run saves and says so, workers and ranks end with their parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from processes import REPOSITORY, train_command
from runs import final_checkpoint, losses
from torch.utils.data import Dataset

from lavis_lite.commands.launch import launch
from lavis_lite.common.registry import registry
from lavis_lite.common.signals import STOP_SIGNALS, StoppedError
from lavis_lite.datasets.loading import TrainLoader

CaptionTask = registry.get_task_class("captioning")


class Workers(Dataset):
    """Samples that name the process that read them."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"worker": os.getpid()}


def gone(pid: int) -> bool:
    """Return whether a process has ended, whether or not its parent has taken note."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while not all(map(gone, pids)):
        assert time.monotonic() < deadline, f"{pids} live on"
        time.sleep(0.05)


def test_workers_read_on_whatever_signal_their_group_gets():
    batches = TrainLoader(Workers(), 2, seed=1, num_workers=2).epoch(0)
    pids = {pid for _ in range(4) for pid in next(batches).samples["worker"]}
    assert len(pids) == 2
    for number in STOP_SIGNALS:  # not from their parent, which may end them by SIGTERM
        subprocess.run(["kill", f"-{number.value}", *map(str, pids)], check=True)
    assert {pid for _ in range(28) for pid in next(batches).samples["worker"]} == pids
    del batches
    wait_until_gone(list(pids))


def test_workers_end_when_their_parent_is_killed():
    script = (
        "import sys, time; sys.path.insert(0, 'tests/runners'); sys.path.insert(0, 'tests')\n"
        "from test_signals import Workers, TrainLoader\n"
        "batches = TrainLoader(Workers(), 2, seed=1, num_workers=2).epoch(0)\n"
        "print(*{pid for _ in range(4) for pid in next(batches).samples['worker']}, flush=True)\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    wait_until_gone(pids)


def start(path: Path, *options: str, ranks: int = 1) -> subprocess.Popen[str]:
    """Start a run at the head of a process group of its own."""
    command = train_command(path, *options, ranks=ranks)
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)


def wait_for_steps(process: subprocess.Popen[str], output: Path, count: int) -> None:
    while not (output / "log.jsonl").exists() or len(losses(output)) < count:
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()[1][-2000:]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_whole_group_of_a_run_with_workers_saves_the_state(run_file, number, code):
    path = run_file.write(max_epoch=400, save_freq=1000, valid_splits=[], num_workers=2)
    process = start(path)
    wait_for_steps(process, run_file.output, 3)
    os.killpg(process.pid, number)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == code, errors
    assert "the same command continues" in errors and "Traceback" not in errors
    assert final_checkpoint(run_file.output)["state"]["step"] == len(losses(run_file.output))


def test_a_signal_while_a_command_starts_ends_it_without_a_traceback(run_file):
    """Also before torch is imported; the code is that of the signal."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-X",
            "importtime",
            str(REPOSITORY / "train.py"),
            "--cfg-path",
            str(run_file.write()),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:  # handlers are set before the first module that a run needs is imported
        if line.endswith("| lavis_lite.cli\n"):
            break
    for line in process.stderr:
        if "|" in line and line.rsplit("|", 1)[1].strip().startswith(("torch", "numpy", "omegaconf")):
            break
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 143
    assert "stopped by SIGTERM." in errors and "Traceback" not in errors


def test_two_ranks_end_with_a_launcher_that_is_killed(run_file):
    """They stop at the same step and save it, as if the launcher had passed SIGTERM on."""
    path = run_file.write(max_epoch=400, save_freq=1000, valid_splits=[], batch_size_train=4)
    launcher = start(path, ranks=2)
    wait_for_steps(launcher, run_file.output, 3)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    ranks = [int(pid) for pid in children if "train.py" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(ranks) == 2
    os.kill(launcher.pid, signal.SIGKILL)
    wait_until_gone(ranks)
    launcher.wait()
    assert final_checkpoint(run_file.output)["state"]["step"] == len(losses(run_file.output))


def in_training() -> bool:
    """Return whether the run notes signals: a rehearsal is not meant."""
    return "_note" in str(signal.getsignal(signal.SIGTERM))


@registry.register_task("signaled_in_validation")
class SignaledInValidation(CaptionTask):
    """A signal in the first validation, and in no other."""

    was_signaled = False

    def valid_step(self, model: Any, samples: Any) -> list[dict[str, Any]]:
        if in_training() and not SignaledInValidation.was_signaled:
            SignaledInValidation.was_signaled = True
            os.kill(os.getpid(), signal.SIGTERM)
        return super().valid_step(model, samples)


@registry.register_task("signaled_in_training")
class SignaledInTraining(CaptionTask):
    signals: tuple[int, ...] = (signal.SIGINT,)

    def train_step(self, model: Any, samples: Any) -> Any:
        if in_training():
            for number in self.signals:
                os.kill(os.getpid(), number)
        return super().train_step(model, samples)


@registry.register_task("signaled_twice")
class SignaledTwice(SignaledInTraining):
    signals = (signal.SIGINT, signal.SIGINT)


@registry.register_task("signaled_by_the_launcher")
class SignaledByTheLauncher(SignaledInTraining):
    """Ctrl-C, which torch's launcher passes on, with SIGTERM after it."""

    signals = (signal.SIGINT, signal.SIGTERM)


def stopped(run_file: Any, task: str) -> tuple[int, dict[str, Any]]:
    """Return the exit code of a run in this process, and the state it saved."""
    with pytest.raises(StoppedError) as error:
        launch(str(run_file.write(task=task, save_freq=1000, save_last=False)), [], [], evaluate_only=False)
    return error.value.exit_code, final_checkpoint(run_file.output)["state"]


def test_a_signal_in_the_first_step_is_obeyed_after_it(run_file):
    code, state = stopped(run_file, "signaled_in_training")
    assert (code, state["step"]) == (130, 1)


def test_the_first_signal_decides_the_exit_code(run_file):
    assert stopped(run_file, "signaled_by_the_launcher")[0] == 130


@pytest.mark.slow
def test_a_signal_in_a_validation_saves_and_the_validation_is_made_up_for(run_file):
    code, state = stopped(run_file, "signaled_in_validation")
    assert (code, state["step"], state["evaluation_due"]) == (143, 5, True)
    launch(str(run_file.write()), [], [], evaluate_only=False)
    lines = [json.loads(line) for line in (run_file.output / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "valid"] == [5, 10]


def test_a_second_ctrl_c_stops_at_once(run_file):
    with pytest.raises(KeyboardInterrupt):
        launch(str(run_file.write(task="signaled_twice")), [], [], evaluate_only=False)
    assert not list((run_file.output / "checkpoints").glob("*.pth"))
