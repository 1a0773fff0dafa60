"""Runs that are resumed with other settings: each change takes effect and is named, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from runs import final_checkpoint, losses

from lavis_lite.commands.launch import launch
from lavis_lite.common.checkpoint.store import CheckpointError
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.logs.writers import read_jsonl
from lavis_lite.runners.bad_data import TrainingError

# Every step leaves a checkpoint; nothing is evaluated unless a test asks for it.
pytestmark = pytest.mark.slow

EVERY_STEP = {"save_every_steps": 1, "save_total_limit": None, "valid_splits": [], "test_splits": []}


def train(path: Path, *options: str) -> None:
    """Train in this process; with the same command, again."""
    launch(str(path), options, [], evaluate_only=False)


def back_to_step(output: Path, step: int) -> None:
    """Leave a folder as a kill after the checkpoint of `step` would."""
    for file in (output / "checkpoints").glob("checkpoint_[0-9]*.pth"):
        if int(file.stem.removeprefix("checkpoint_")) > step:
            file.unlink()
    (output / "evaluate.json").unlink(missing_ok=True)


def lines(output: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_jsonl(output / "log.jsonl") if line["kind"] == kind]


def notes(output: Path) -> list[tuple[int, dict[str, str]]]:
    """Return (step, what changed) of each note in the log."""
    return [
        (line["step"], {k: v for k, v in line.items() if k not in ("kind", "step", "time")})
        for line in lines(output, "note")
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shapes_folder) -> Path:
    """A run of 2 epochs of 5 steps with 8 samples each, killed after step 3: 24 of 40 samples."""
    from conftest import RunFile

    run_file = RunFile(tmp_path_factory.mktemp("trained"), shapes_folder)
    train(run_file.write(**EVERY_STEP))
    back_to_step(run_file.output, 3)
    return run_file.folder


@pytest.fixture
def killed(trained, tmp_path) -> Path:
    """A copy of that folder; its run file."""
    import shutil

    shutil.copytree(trained, tmp_path / "copy")
    path = tmp_path / "copy" / "run.yaml"
    path.write_text(path.read_text().replace(str(trained), str(tmp_path / "copy")))
    return path


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        # 16 samples are left of the first epoch, 40 of the second
        (["run.batch_size_train=4"], [4, 5, 6, 7, *range(8, 18)]),
        (["run.batch_size_train=16", "run.drop_last=false"], [4, 5, 6, 7]),
        (["run.accum_grad_iters=2"], [4, 5, 6, 7]),
        (["run.batch_size_train=7", "run.drop_last=false"], [4, 5, 6, *range(7, 13)]),
    ],
)
def test_with_another_batch_size_a_run_ends_after_as_many_epochs(killed, options, steps):
    train(killed, *options)
    output = killed.parent / "run"
    assert [line["step"] for line in lines(output, "train")] == [1, 2, 3, *steps]
    state = final_checkpoint(output)["state"]
    assert (state["epoch"], state["batch"], state["skipped"]) == (2, 0, 0)


def test_killed_again_with_another_batch_size_it_ends_the_same(killed):
    """16 samples a step from sample 24 on: the first 8 are left out, until the next epoch."""
    options = ["run.batch_size_train=16", "run.drop_last=false"]
    train(killed, *options)
    output = killed.parent / "run"
    expected, losses_before = final_checkpoint(output), losses(output)
    back_to_step(output, 4)
    train(killed, *options)
    assert losses(output) == losses_before
    for name, tensor in final_checkpoint(output)["model"].items():
        assert torch.equal(tensor, expected["model"][name]), name


def test_a_changed_learning_rate_takes_effect_and_is_noted(killed):
    train(killed, "run.init_lr=0.5e-3", "run.lr_sched=constant_lr")
    output = killed.parent / "run"
    assert [line["lr"] for line in lines(output, "train")][3:] == [0.5e-3] * 7
    assert notes(output) == [
        (3, {"run.lr_sched": "linear_warmup_cosine_lr -> constant_lr", "run.init_lr": "0.001 -> 0.0005"})
    ]
    assert yaml.safe_load((output / "config.yaml").read_text())["run"]["init_lr"] == 0.5e-3


def test_a_changed_decay_takes_effect(killed):
    train(killed, "run.weight_decay=0.2", "run.beta2=0.9")
    groups = final_checkpoint(killed.parent / "run")["optimizer"]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.2, 0.0}
    assert {tuple(group["betas"]) for group in groups} == {(0.9, 0.9)}


def test_decay_can_be_switched_off(killed):
    train(killed, "run.weight_decay=0.0")
    groups = final_checkpoint(killed.parent / "run")["optimizer"]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.0}


def test_a_change_is_noted_once_however_often_the_run_is_killed(killed):
    train(killed, "run.init_lr=0.5e-3")
    back_to_step(killed.parent / "run", 3)
    train(killed, "run.init_lr=0.5e-3")
    back_to_step(killed.parent / "run", 6)
    train(killed, "run.init_lr=0.5e-3")
    assert notes(killed.parent / "run") == [(3, {"run.init_lr": "0.001 -> 0.0005"})]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("run.seed=7", "run.seed was 42 and is now 7"),
        ("run.optimizer=muon", "run.optimizer was 'adamw' and is now 'muon'"),
        ("run.freeze=[visual_encoder]", r"run.freeze was \[\] and is now \['visual_encoder'\]"),
        ("run.lr_scale={visual_encoder: 0.1}", "run.lr_scale.visual_encoder was not set and is now 0.1"),
        ("datasets.shapes_caption.captions_per_image=1", "captions_per_image was 2 and is now 1"),
    ],
)
def test_what_cannot_be_changed_is_refused_and_nothing_is_touched(killed, option, said):
    output = killed.parent / "run"
    before = {file: file.read_bytes() for file in sorted(output.glob("*.*")) if file.name != "run.log"}
    with pytest.raises(ConfigError, match=said):
        train(killed, option)
    assert {file: file.read_bytes() for file in before} == before


def test_fewer_epochs_than_are_trained_are_refused(killed):
    train(killed, "run.max_epoch=3")
    with pytest.raises(ConfigError, match=r"max_epoch is 2, but .* been trained for 3 epochs"):
        train(killed)
    config = yaml.safe_load((killed.parent / "run" / "config.yaml").read_text())
    assert config["run"]["max_epoch"] == 3


def test_fewer_iterations_than_are_trained_are_refused(run_file):
    path = run_file.write(**EVERY_STEP, runner="runner_iter", max_iters=4)
    train(path)
    with pytest.raises(ConfigError, match=r"max_iters is 3, but .* been trained for 4 steps"):
        train(path, "run.max_iters=3")
    train(path, "run.max_iters=6", "run.batch_size_train=16")
    assert len(losses(run_file.output)) == 6


def test_a_longer_run_is_tested_again(run_file):
    path = run_file.write(max_epoch=1)
    train(path)
    evaluate_file = run_file.output / "evaluate.json"
    before = json.loads(evaluate_file.read_text())
    train(path, "run.max_epoch=4", "run.init_lr=5e-3")
    after = json.loads(evaluate_file.read_text())
    best = torch.load(run_file.output / "checkpoints" / "checkpoint_best.pth", weights_only=True)
    assert before["made_with"]["step"] == 5
    assert after["made_with"]["step"] == best["step"] > 5
    assert after["made_with"]["weights"] != before["made_with"]["weights"]
    assert [line["step"] for line in lines(run_file.output, "test")] == [5, 20]


def test_a_finished_run_is_tested_again_with_other_generation(run_file):
    path = run_file.write(max_epoch=1)
    train(path)
    train(path, "run.num_beams=1")
    made_with = json.loads((run_file.output / "evaluate.json").read_text())["made_with"]
    assert made_with["settings"]["num_beams"] == 1


def test_at_the_end_settings_of_training_have_no_effect_and_are_not_claimed(run_file):
    path = run_file.write(max_epoch=1, valid_splits=[], test_splits=[])
    train(path)
    train(path, "run.init_lr=0.5", "run.batch_size_train=4", "run.test_splits=[test]")
    saved = yaml.safe_load((run_file.output / "config.yaml").read_text())["run"]
    assert (saved["init_lr"], saved["batch_size_train"], saved["test_splits"]) == (1e-3, 8, ["test"])
    assert notes(run_file.output) == [(5, {"run.test_splits": "[] -> ['test']"})]


def test_more_patience_lets_a_stopped_run_continue(run_file):
    path = run_file.write(max_epoch=9, patience=1, init_lr=0.0, warmup_lr=0.0, test_splits=[])
    train(path)
    assert len(losses(run_file.output)) == 2 * 5
    train(path, "run.patience=2")
    assert len(losses(run_file.output)) == 3 * 5


def test_scores_of_another_metric_are_not_compared(run_file):
    path = run_file.write(max_epoch=1, test_splits=[])
    train(path)
    train(path, "run.max_epoch=2", "run.best_metric=Bleu_1")
    state = final_checkpoint(run_file.output)["state"]
    score = next(line for line in lines(run_file.output, "valid") if line["step"] == 10)["Bleu_1"]
    assert (state["best_step"], state["best_score"]) == (10, score)


def test_a_new_folder_continues_another_run_with_other_data(killed, tmp_path):
    """The epoch begins again; the best checkpoint is the new folder's own."""
    checkpoint = killed.parent / "run" / "checkpoints" / "checkpoint_00000003.pth"
    new = tmp_path / "new"
    train(
        killed,
        f"run.output_dir={new}",
        f"run.resume_ckpt_path={checkpoint}",
        "run.seed=7",
        "run.valid_splits=[val]",
        "run.test_splits=[test]",
    )
    assert [line["step"] for line in lines(new, "train")] == list(range(4, 14))
    (step, noted) = notes(new)[0]
    assert (step, noted["run.seed"], noted["continued from"]) == (3, "42 -> 7", str(checkpoint))
    assert (new / "checkpoints" / "checkpoint_best.pth").is_file()


def test_a_checkpoint_of_another_model_is_refused_in_a_new_folder(killed, tmp_path):
    checkpoint = killed.parent / "run" / "checkpoints" / "checkpoint_00000003.pth"
    options = [f"run.output_dir={tmp_path / 'new'}", f"run.resume_ckpt_path={checkpoint}"]
    with pytest.raises(ConfigError, match=r"model\.max_txt_len was 40 and is now 20"):
        train(killed, *options, "model.max_txt_len=20")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("run", "is a folder; its newest checkpoint is .*checkpoint_00000003.pth"),
        ("run/checkpoints", "is a folder; its newest checkpoint is .*checkpoint_00000003.pth"),
        ("run/tokenizer", "is a folder; it holds no checkpoint"),
        ("nowhere.pth", r"nowhere\.pth: there is no such file"),
    ],
)
def test_what_is_no_checkpoint_to_resume_from_is_named(killed, tmp_path, name, said):
    with pytest.raises(CheckpointError, match=said):
        train(
            killed,
            f"run.output_dir={tmp_path / 'new'}",
            f"run.resume_ckpt_path={killed.parent / name}",
        )


def test_data_that_ends_early_is_an_error_and_not_a_wait(killed, monkeypatch):
    """An epoch without a batch, where some are due, would otherwise be entered again for ever."""
    from lavis_lite.datasets.loading import TrainLoader

    whole = TrainLoader.epoch

    def epoch(self, epoch: int, first_batch: int = 0, skipped: int = 0):
        return iter(()) if first_batch else whole(self, epoch, first_batch, skipped)

    monkeypatch.setattr(TrainLoader, "epoch", epoch)
    with pytest.raises(TrainingError, match="ends at batch 3 of epoch 1, which should have 5"):
        train(killed)


def test_results_without_a_checkpoint_are_not_overwritten(run_file):
    path = run_file.write(max_epoch=1, save_last=False, save_freq=100)
    train(path)
    with pytest.raises(ConfigError, match=r"holds results \(evaluate\.json\) but no checkpoint"):
        train(path)


def test_resume_never_refuses_a_folder_with_a_run(killed):
    with pytest.raises(ConfigError, match=r"already holds a run, and run\.resume is never"):
        train(killed, "run.resume=never")
