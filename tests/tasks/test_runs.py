"""Every task trains and is evaluated by config alone; its numbers do not depend on the number of ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SHAPES, TINY_SIZES
from processes import run, train_command

DATA: dict[str, dict[str, Any]] = {
    "shapes_retrieval": {"train_images": 16, "val_images": 6, "test_images": 9, "drawn_size": 32},
    "shapes_vqa": {"train_images": 16, "val_images": 4, "test_images": 7, "drawn_size": 32},
    "shapes_nlvr": {"train_pairs": 24, "val_pairs": 6, "test_pairs": 10, "drawn_size": 32},
    "shapes_classification": {"train_images": 24, "val_images": 5, "test_images": 9, "drawn_size": 32},
    "shapes_web": {"samples": 32, "samples_per_shard": 8, "drawn_size": 32},
    "shapes_video_retrieval": {"train_videos": 4, "val_videos": 2, "test_videos": 5, "drawn_size": 32},
    "shapes_video_qa": {"train_videos": 4, "val_videos": 2, "test_videos": 5, "drawn_size": 32},
}
CASES = {
    # task, model, data set, the metric that decides, further settings of the model and of the run
    "retrieval": ("blip_retrieval", "shapes_retrieval", "r_mean", {"queue_size": 24}, {"k_test": 4}),
    "vqa": ("blip_vqa", "shapes_vqa", "agg_metrics", {}, {"num_ans_candidates": 5}),
    "multimodal_classification": ("blip_nlvr", "shapes_nlvr", "agg_metrics", {}, {}),
    "labels": ("blip_classification", "shapes_classification", "agg_metrics", {"num_classes": 48}, {}),
}


def write(folder: Path, case: str, **run_settings: Any) -> Path:
    arch, data, _, model, further = CASES[case]
    eyes = {split: {"name": "blip_image_eval"} for split in ("train", "eval")}
    sections = {
        "imports": [SHAPES],
        "model": {"arch": arch, "model_type": "tiny", **TINY_SIZES, **model},
        "datasets": {data: {**DATA[data], "vis_processor": eyes, "folder": str(folder.parent / data)}},
        "run": {
            "task": "multimodal_classification" if case == "labels" else case,
            "init_lr": 1e-3,
            "max_epoch": 1,
            "batch_size_train": 4,
            "batch_size_eval": 4,
            "num_workers": 0,
            "log_freq": 1,
            "output_dir": str(folder / "run"),
            "device": "cpu",
            **further,
            **run_settings,
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(sections, sort_keys=False))
    return folder / "run.yaml"


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "evaluate.json").read_text())["test"]


@pytest.mark.parametrize("case", CASES)
def test_a_task_trains_on_two_ranks_and_evaluates_alike_on_one(case, tmp_path):
    two = tmp_path / "two"
    said = run(train_command(write(two, case), ranks=2))
    assert said.returncode == 0, said.stderr[-3000:]
    found = metrics(two)
    assert CASES[case][2] in found and 0 <= found[CASES[case][2]] <= 100
    assert (two / "run" / "report.html").is_file()
    one = tmp_path / "one"
    options = [
        f"run.output_dir={one / 'run'}",
        "model.load_pretrained=true",
        f"model.pretrained={two / 'run'}",
    ]
    said = run(train_command(write(one, case), *options, script="evaluate.py"))
    assert said.returncode == 0, said.stderr[-3000:]
    assert metrics(one) == pytest.approx(found, abs=1e-6)
    records = [
        json.loads((folder / "run" / "result" / "test_report.json").read_text()) for folder in (two, one)
    ]
    assert [r["instance_id"] for r in records[0]] == [r["instance_id"] for r in records[1]]


def test_retrieval_lists_what_each_query_found(tmp_path):
    path = write(tmp_path / "a", "retrieval")
    said = run(train_command(path, "run.shown_candidates=3", script="evaluate.py"))
    assert said.returncode == 0, said.stderr[-3000:]
    records = json.loads((tmp_path / "a" / "run" / "result" / "test_report.json").read_text())
    images = [record for record in records if record["query"] == "image"]
    texts = [record for record in records if record["query"] == "text"]
    assert (len(images), len(texts)) == (9, 45)
    for record in records:
        scores = [candidate["score"] for candidate in record["found"]]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)
        assert (record["rank"] == 0) == record["found"][0]["right"]
    found = metrics(tmp_path / "a")
    assert found["txt_r1"] == pytest.approx(100 * sum(r["rank"] < 1 for r in images) / 9)
    assert found["img_r5"] == pytest.approx(100 * sum(r["rank"] < 5 for r in texts) / 45)


def test_more_candidates_than_there_are_images_are_clipped(tmp_path):
    said = run(train_command(write(tmp_path / "a", "retrieval"), "run.k_test=500", script="evaluate.py"))
    assert said.returncode == 0, said.stderr[-3000:]
    assert metrics(tmp_path / "a")["images"] == 9


def test_the_answers_of_a_split_are_what_the_server_takes(tmp_path):
    said = run(train_command(write(tmp_path / "a", "vqa"), script="evaluate.py"))
    assert said.returncode == 0, said.stderr[-3000:]
    answers = json.loads((tmp_path / "a" / "run" / "result" / "test.json").read_text())
    assert all(set(entry) == {"question_id", "answer"} for entry in answers)
    assert any(name.startswith("question: color") for name in metrics(tmp_path / "a"))


@pytest.mark.parametrize(
    ("task", "arch", "data", "metric"),
    [
        ("video_retrieval", "blip_retrieval", "shapes_video_retrieval", "r_mean"),
        ("video_qa", "blip_vqa", "shapes_video_qa", "agg_metrics"),
    ],
)
def test_videos_are_evaluated_by_models_that_never_saw_one(task, arch, data, metric, tmp_path):
    model = {"queue_size": 8} if arch == "blip_retrieval" else {}
    sections = {
        "imports": [SHAPES],
        "model": {"arch": arch, "model_type": "tiny", **TINY_SIZES, **model},
        "datasets": {
            data: {
                **DATA[data],
                "folder": str(tmp_path / "videos"),
                "vis_processor": {"eval": {"name": "blip_video_eval", "n_frms": 4}},
            }
        },
        "run": {"task": task, "batch_size_eval": 2, "num_workers": 0, "device": "cpu"}
        | {"output_dir": str(tmp_path / "run"), "evaluate": True},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(sections))
    said = run(train_command(tmp_path / "run.yaml", script="evaluate.py"))
    assert said.returncode == 0, said.stderr[-3000:]
    assert 0 <= metrics(tmp_path)[metric] <= 100


def test_pretraining_runs_from_shards_and_gives_what_others_start_from(tmp_path):
    sections = {
        "imports": [SHAPES],
        "model": {"arch": "blip_pretrain", "model_type": "tiny", **TINY_SIZES, "queue_size": 12},
        "datasets": {
            "shapes_web": {**DATA["shapes_web"], "folder": str(tmp_path / "web"), "shuffle_buffer": 8}
        },
        "run": {"task": "image_text_pretrain", "max_epoch": 2, "batch_size_train": 4, "num_workers": 1}
        | {"init_lr": 1e-3, "device": "cpu", "log_freq": 1, "output_dir": str(tmp_path / "pretrain")},
    }
    (tmp_path / "pretrain.yaml").write_text(yaml.safe_dump(sections))
    said = run(train_command(tmp_path / "pretrain.yaml", ranks=2))
    assert said.returncode == 0, said.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "pretrain" / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    assert len(steps) == 8 and {"loss_itc", "loss_itm", "loss_lm"} <= set(steps[0])
    options = ["model.load_pretrained=true", f"model.pretrained={tmp_path / 'pretrain'}"]
    said = run(train_command(write(tmp_path / "vqa", "vqa"), *options))
    assert said.returncode == 0, said.stderr[-3000:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["run.task=vqas"], "vqa"),
        (["run.k_test=0"], "run.k_test: must be at least 1"),
        (["run.best_metric=txt_r7"], "txt_r1"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(options, message, tmp_path):
    said = run(train_command(write(tmp_path / "a", "retrieval"), *options))
    assert said.returncode == 1 and message in said.stderr and "Traceback" not in said.stderr, said.stderr
