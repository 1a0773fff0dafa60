"""Training as a whole: real processes, real files."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time

import pytest
from processes import run, train_command
from runs import assert_identical, comparable, final_checkpoint, kill_at_step, losses

from lavis_lite.common.logs.writers import read_jsonl


def test_a_run_leaves_everything_in_one_folder(run_file):
    path = run_file.write(report=True)
    result = run(train_command(path))
    assert result.returncode == 0, result.stderr
    output = run_file.output
    for name in ("config.yaml", "log.jsonl", "evaluate.json", "report.html", "tensorboard", "tokenizer"):
        assert (output / name).exists(), name
    assert (output / "checkpoints" / "checkpoint_best.pth").is_file()
    captions = json.loads((output / "result" / "test.json").read_text())
    assert {tuple(record) for record in captions} == {("image_id", "caption")}
    assert [record["image_id"] for record in captions] == list(range(50, 60))
    assert "CIDEr" in result.stdout
    assert len(losses(output)) == 10


def test_the_loss_falls(run_file):
    run(train_command(run_file.write(max_epoch=8, valid_splits=[], test_splits=[], init_lr=5e-3)))
    values = losses(run_file.output)
    assert values[-1] < values[0] - 1


def test_validation_changes_nothing_in_training(run_file):
    """Dropout, which validation switches off, is on again after it."""
    validated, alone = run_file.folder / "validated", run_file.folder / "alone"
    path = run_file.write(max_epoch=3, test_splits=[])
    run(train_command(path, f"run.output_dir={validated}"))
    run(train_command(path, f"run.output_dir={alone}", "run.valid_splits=[]"))
    assert len(losses(validated)) == 15
    assert losses(validated) == losses(alone)


def test_killed_at_random_steps_a_run_ends_as_if_it_never_was(run_file):
    """SIGKILL at five random steps; the same command continues each time; equal bit for bit."""
    settings = {"max_epoch": 6, "save_every_steps": 1, "num_workers": 1, "val_freq": 2}
    reference = run_file.write(**settings)
    result = run(train_command(reference))
    assert result.returncode == 0, result.stderr
    expected = comparable(run_file.output)

    killed = run_file.folder / "killed"
    command = train_command(reference, f"run.output_dir={killed}")
    generator = random.Random(os.environ.get("KILL_SEED", "20"))
    steps = sorted(generator.sample(range(1, 30), 5))
    for step in steps:
        kill_at_step(command, killed, step)
    result = run(command)
    assert result.returncode == 0, result.stderr
    assert "Resumed at step" in result.stderr
    assert_identical(comparable(killed), expected)


def test_one_and_two_ranks_train_and_evaluate_alike(run_file):
    """The same global batch: equal losses, equal captions."""
    run_file.sections["model"]["med_config"].update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    settings = {"max_epoch": 2, "drop_last": False}
    alone, together = run_file.folder / "alone", run_file.folder / "together"
    path = run_file.write(**settings)
    one = run(train_command(path, f"run.output_dir={alone}", "run.batch_size_train=6"))
    two = run(train_command(path, f"run.output_dir={together}", "run.batch_size_train=3", ranks=2))
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    assert losses(alone) == pytest.approx(losses(together), abs=1e-5)
    for name in ("val_epoch2.json", "test.json"):
        captions = [json.loads((output / "result" / name).read_text()) for output in (alone, together)]
        assert captions[0] == captions[1]
        assert len(captions[0]) == 10


def test_accumulated_batches_make_the_same_step_as_one_batch(run_file):
    """The last window of an epoch, of fewer batches, included: 40 images are 3 windows of 16."""
    run_file.sections["model"]["med_config"].update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    path = run_file.write(drop_last=False, test_splits=[], valid_splits=[])
    whole, pieces = run_file.folder / "whole", run_file.folder / "pieces"
    run(train_command(path, f"run.output_dir={whole}", "run.batch_size_train=16"))
    run(train_command(path, f"run.output_dir={pieces}", "run.batch_size_train=4", "run.accum_grad_iters=4"))
    assert len(losses(whole)) == 6
    assert losses(pieces) == pytest.approx(losses(whole), abs=1e-5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_state_and_says_so(run_file, number, code):
    path = run_file.write(max_epoch=400, save_freq=1000, valid_splits=[])
    process = subprocess.Popen(train_command(path), stderr=subprocess.PIPE, text=True)
    while not (run_file.output / "log.jsonl").exists() or len(losses(run_file.output)) < 3:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert "the same command continues" in errors
    assert final_checkpoint(run_file.output)["state"]["step"] == len(losses(run_file.output))


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_is_used(run_file):
    path = run_file.write(save_total_limit=2)
    run(train_command(path))
    newest = sorted((run_file.output / "checkpoints").glob("checkpoint_[0-9]*.pth"))[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF  # one flipped byte
    newest.write_bytes(content)
    (run_file.output / "evaluate.json").unlink()
    result = run(train_command(path))
    assert result.returncode == 0, result.stderr
    assert f"{newest}: the file is damaged" in result.stderr
    assert "Resumed at step 5 of 10" in result.stderr


def test_a_finished_run_is_not_done_again(run_file):
    path = run_file.write()
    run(train_command(path))
    before = (run_file.output / "log.jsonl").read_text()
    result = run(train_command(path))
    assert "This run is complete" in result.stderr
    assert (run_file.output / "log.jsonl").read_text() == before


def test_another_model_in_the_same_folder_is_refused(run_file):
    path = run_file.write()
    run(train_command(path))
    result = run(train_command(path, "model.max_txt_len=20"))
    assert result.returncode == 1
    assert "max_txt_len was 40 and is now 20" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_iteration_run_stops_at_its_last_step(run_file):
    path = run_file.write(runner="runner_iter", max_iters=7, iters_per_inner_epoch=3)
    result = run(train_command(path, "run.max_epoch=1"))
    assert result.returncode == 0, result.stderr
    assert len(losses(run_file.output)) == 7
    lines = [line["step"] for line in read_jsonl(run_file.output / "log.jsonl") if line["kind"] == "valid"]
    assert lines == [3, 6, 7]


def test_patience_stops_a_run_that_gains_nothing(run_file):
    path = run_file.write(max_epoch=9, patience=2, init_lr=0.0, warmup_lr=0.0)
    result = run(train_command(path))
    assert "No gain in 2 validations" in result.stderr
    assert len(losses(run_file.output)) == 3 * 5


def test_losses_that_are_not_finite_stop_the_run_with_the_samples(run_file):
    path = run_file.write(init_lr=1e30, warmup_lr=1e30, max_bad_steps=2, valid_splits=[])
    result = run(train_command(path))
    assert result.returncode == 1
    assert "2 steps had a loss or gradient that is not finite" in result.stderr
    assert "on the samples [" in result.stderr
    assert final_checkpoint(run_file.output)["state"]["bad_steps"] == 2


def test_unreadable_images_are_replaced_until_they_are_too_many(run_file, shapes_folder):
    import shutil

    copy = run_file.folder / "images"
    shutil.copytree(shapes_folder / "images", copy)
    for number in (3, 4):
        (copy / "train" / f"{number:012d}.jpg").write_bytes(b"no image")
    (copy / "test" / f"{55:012d}.jpg").unlink()
    annotations = {
        split: {"storage": str(shapes_folder / "annotations" / f"shapes_karpathy_{split}.json")}
        for split in ("train", "val", "test")
    }
    run_file.sections["datasets"] = {
        "coco_caption": {
            "images": str(copy),
            "captions_per_image": 2,
            "build_info": {"annotations": annotations},
        }
    }
    path = run_file.write(max_bad_fraction=0.1)
    result = run(train_command(path))
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("cannot be read and is replaced") == 2
    assert json.loads((run_file.output / "evaluate.json").read_text())["test"]["samples_without_image"] == [5]
    strict = run(
        train_command(path, "run.max_bad_fraction=0.01", f"run.output_dir={run_file.folder / 'strict'}")
    )
    assert strict.returncode == 1
    assert "more than run.max_bad_fraction (1.0%) allows" in strict.stderr


def test_evaluate_gives_the_numbers_of_training_again(run_file):
    path = run_file.write()
    run(train_command(path))
    trained = json.loads((run_file.output / "evaluate.json").read_text())
    again = run_file.folder / "again"
    options = (f"model.finetuned={run_file.output}", "model.load_finetuned=true", f"run.output_dir={again}")
    result = run(train_command(path, *options, script="evaluate.py"))
    assert result.returncode == 0, result.stderr
    assert json.loads((again / "evaluate.json").read_text()) == trained


def test_weights_and_biases_is_told_the_numbers(run_file):
    """Offline: what would be sent lies in the run folder."""
    path = run_file.write(wandb_project="shapes", max_epoch=1)
    result = run(train_command(path), WANDB_MODE="offline", WANDB_SILENT="true")
    assert result.returncode == 0, result.stderr
    (record,) = (run_file.output / "wandb").glob("offline-run-*/*.wandb")
    content = record.read_bytes()
    for name in (b"train/loss", b"val/CIDEr", b"optimizer_step"):
        assert name in content


def test_the_log_says_how_fast_training_goes_and_what_it_waits_for(run_file):
    path = run_file.write(
        max_epoch=1, num_workers=1, valid_splits=[], test_splits=[], lr_scale={"visual_encoder": 0.5}
    )
    result = run(train_command(path))
    assert result.returncode == 0, result.stderr
    for line in read_jsonl(run_file.output / "log.jsonl"):
        assert line["images_per_second"] > 0
        assert line["tokens_per_second"] > line["images_per_second"]
        assert 0 <= line["data_wait_share"] <= 1
        assert line["peak_memory_gib"] > 0.05
        assert line["lr/visual_encoder"] == pytest.approx(0.5 * line["lr"])
