"""A run folder has one owner at a time, and says who it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import run, train_command

from lavis_lite.commands import run_folders
from lavis_lite.commands.launch import launch
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import OwnerLock

HOLD = """
import sys, time
from lavis_lite.common.files import OwnerLock
lock = OwnerLock(sys.argv[1], "it").acquire()
print("held", flush=True)
time.sleep(300)
"""


@contextmanager
def other_process_in(folder: Path) -> Iterator[subprocess.Popen]:
    """Another process holds the lock of `folder`."""
    command = [sys.executable, "-c", HOLD, str(folder / run_folders.LOCK_FILE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(run_folders, "WAIT_SECONDS", 0.1)


def test_a_second_run_in_a_folder_is_refused_before_it_writes(run_file):
    path = run_file.write(max_epoch=1)
    with other_process_in(run_file.output) as other, pytest.raises(ConfigError) as refused:
        launch(str(path), [], [], evaluate_only=False)
    assert f"run.output_dir: {run_file.output} is in use by process {other.pid} on" in str(refused.value)
    left = {file.name for file in run_file.output.iterdir()}
    assert left == {run_folders.LOCK_FILE, f"{run_folders.LOCK_FILE}.holder"}


def test_a_killed_owner_leaves_the_folder_free(run_file):
    with other_process_in(run_file.output) as other:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        launch(str(run_file.write(max_epoch=1, test_splits=[], valid_splits=[])), [], [], False)


@pytest.mark.parametrize("options", [[], ["run.seed=x"], ["run.lr_scale={nothing: 1.0}"]])
def test_the_folder_is_free_after_a_run_however_it_ends(run_file, options):
    path = run_file.write(max_epoch=1, test_splits=[], valid_splits=[])
    try:
        launch(str(path), options, [], evaluate_only=False)
    except ValueError:
        assert options
    OwnerLock(run_file.output / run_folders.LOCK_FILE, "it").acquire().release()


def test_a_run_that_is_being_trained_can_be_evaluated_beside_it(run_file):
    launch(str(run_file.write(max_epoch=1, test_splits=[])), [], [], evaluate_only=False)
    with other_process_in(run_file.output):
        folder = launch(str(run_file.output), ["run.test_splits=[test]"], [], evaluate_only=True)
    assert folder.path.parent == run_file.output
    assert not (run_file.output / "evaluate.json").exists()
    assert (folder.path / "evaluate.json").is_file()


def test_two_evaluations_do_not_write_to_one_folder(run_file, tmp_path):
    launch(str(run_file.write(max_epoch=1, test_splits=[])), [], [], evaluate_only=False)
    options = ["run.test_splits=[test]", f"run.output_dir={tmp_path / 'results'}"]
    with other_process_in(tmp_path / "results") as other, pytest.raises(ConfigError) as refused:
        launch(str(run_file.output), options, [], evaluate_only=True)
    assert f"results is in use by process {other.pid} on" in str(refused.value)


def test_an_output_dir_that_is_a_file_is_named(run_file):
    run_file.output.write_text("not a folder")
    with pytest.raises(ConfigError, match=r"run\.output_dir: .*run cannot be written"):
        launch(str(run_file.write()), [], [], evaluate_only=False)


def test_every_rank_ends_when_the_folder_is_in_use(run_file):
    path = run_file.write(max_epoch=1)
    with other_process_in(run_file.output) as other:
        said = run(train_command(path, ranks=2))
    assert said.returncode == 1
    assert said.stderr.count(f"is in use by process {other.pid} on") == 1
