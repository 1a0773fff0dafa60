"""Damage in a run folder does not end a resume, and what was set aside is named."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run, train_command
from runs import kill_at_step

from lavis_lite.common.checkpoint.store import CheckpointError
from lavis_lite.common.logs.writers import read_jsonl
from lavis_lite.common.seeding import rng_state
from lavis_lite.runners.state import TrainState, check_resumable, load_resumable

CONTENT: dict[str, Any] = {
    "model": {"a": torch.ones(2)},
    "optimizer": {"state": {}, "param_groups": []},
    "scaler": {},
    "state": TrainState(step=4).state_dict(),
    "metrics": {},
    "ranks": [{"rng": rng_state(), "bad_samples": []}],
}


def test_a_whole_state_is_accepted():
    check_resumable(CONTENT)
    check_resumable({**CONTENT, "optimizer": {"parts": [CONTENT["optimizer"]]}})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((name, None) for name in CONTENT),
        *((name, 3) for name in CONTENT),
        ("optimizer.param_groups", None),
        ("state.step", "4"),
        ("state.step", None),
        ("state.batch", -1),
        ("state.best_score", "high"),
        ("ranks.0", {}),
        ("ranks.0", 3),
        ("model.a", [1.0]),
        ("model.a", torch.tensor([1.0, float("nan")])),
        ("model.a", torch.tensor([1.0, float("inf")])),
    ],
)
def test_a_state_that_no_run_can_go_on_from_is_refused(path, value):
    content = copy.deepcopy(CONTENT)
    *parents, name = (int(part) if part.isdigit() else part for part in path.split("."))
    holder: Any = content
    for parent in parents:
        holder = holder[parent]
    if value is None:
        del holder[name]
    else:
        holder[name] = value
    with pytest.raises(CheckpointError):
        check_resumable(content)


def test_weights_alone_are_pointed_to_their_place(tmp_path):
    torch.save({"model": {"a": torch.ones(2)}}, tmp_path / "weights.pth")
    with pytest.raises(
        CheckpointError, match=r"weights\.pth: holds weights .* load it with model\.finetuned"
    ):
        load_resumable(tmp_path / "weights.pth")


def train_steps(output: Path) -> list[int]:
    return [line["step"] for line in read_jsonl(output / "log.jsonl") if line["kind"] == "train"]


def flip_name_in_directory(path: Path) -> None:
    """Damage the zip directory so that reading it raises an error that is not zipfile's own."""
    content = bytearray(path.read_bytes())
    end = content.rfind(b"PK\5\6")
    content[int.from_bytes(content[end + 16 : end + 20], "little") + 46] ^= 0x80
    path.write_bytes(content)


def test_damage_all_over_a_run_folder_does_not_end_it(run_file):
    path = run_file.write(save_every_steps=1, save_total_limit=3)
    first = run(train_command(path))
    assert first.returncode == 0, first.stderr
    output = run_file.output
    _, ninth, tenth = sorted((output / "checkpoints").glob("checkpoint_[0-9]*.pth"))
    flip_name_in_directory(tenth)
    torch.save({"model": {}, "state": {"step": 9}}, ninth)
    (output / "config.yaml").write_text("")
    (output / "evaluate.json").write_text("{")
    lines = (output / "log.jsonl").read_bytes().splitlines(keepends=True)
    (output / "log.jsonl").write_bytes(b"".join([*lines[:3], b"\x00\x00\n", *lines[3:]]))
    again = run(train_command(path))
    assert again.returncode == 0, again.stderr
    assert "Traceback" not in again.stderr
    assert "Resumed at step 8 of 10" in again.stderr
    for damaged in (ninth, tenth):
        assert f"It is now called {damaged.name}.damaged" in again.stderr
    assert "1 damaged lines (4) were moved to log.jsonl.damaged" in again.stderr
    assert train_steps(output) == list(range(1, 11))
    assert "arch: blip_caption" in (output / "config.yaml").read_text()
    assert "CIDEr" in (output / "evaluate.json").read_text()


def test_a_kill_before_the_first_checkpoint_leaves_each_step_once_in_the_log(run_file):
    path = run_file.write(save_freq=9, valid_splits=[], test_splits=[])
    kill_at_step(train_command(path), run_file.output, 3)
    result = run(train_command(path))
    assert result.returncode == 0, result.stderr
    assert train_steps(run_file.output) == list(range(1, 11))
    assert (run_file.output / "log.jsonl.previous").is_file()
