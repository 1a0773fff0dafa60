"""Training on files and shards together, by ratio, on several processes."""

from __future__ import annotations

import json

import torch
from processes import run, train_command

from lavis_lite.common.checkpoint.store import CheckpointStore

WEB = {"samples": 48, "samples_per_shard": 8, "drawn_size": 32, "seed": 3, "shuffle_buffer": 4}


def mixture(run_file, tmp_path, **changes):
    run_file.sections["datasets"]["shapes_web"] = {**WEB, "folder": str(tmp_path / "web")}
    return run_file.write(
        train_dataset_ratios={"shapes_caption": 1, "shapes_web": 2},
        valid_splits=[],
        test_splits=[],
        max_epoch=2,
        num_workers=2,
        batch_size_train=4,
        **changes,
    )


def losses(output) -> list[float]:
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def test_a_mixture_trains_on_two_ranks_and_goes_on_where_it_was_stopped(run_file, tmp_path):
    whole = tmp_path / "whole"
    said = run(train_command(mixture(run_file, tmp_path, output_dir=str(whole)), ranks=2))
    assert said.returncode == 0, said.stderr[-3000:]
    # 5 steps of files and 6 of shards are an epoch, whichever they are drawn from
    assert len(losses(whole)) == 2 * 11
    state = CheckpointStore(whole / "checkpoints").load_newest()[1]

    part = tmp_path / "part"
    config = mixture(run_file, tmp_path, output_dir=str(part), save_every_steps=3)
    assert run(train_command(config, ranks=2)).returncode == 0
    (part / "checkpoints" / "checkpoint_00000022.pth").unlink()  # as if it had been killed after step 21
    said = run(train_command(config, ranks=2))
    assert said.returncode == 0 and "Resumed at step 21" in said.stderr + said.stdout, said.stderr[-3000:]
    again = CheckpointStore(part / "checkpoints").load_newest()[1]
    assert all(torch.equal(again["model"][key], state["model"][key]) for key in state["model"])


def test_a_ratio_for_no_data_set_is_said_in_one_sentence(run_file, tmp_path):
    config = mixture(run_file, tmp_path)
    said = run(train_command(config, "run.train_dataset_ratios.shapes_wev=1"))
    assert said.returncode == 1
    assert "shapes_web" in said.stderr and "Traceback" not in said.stderr
