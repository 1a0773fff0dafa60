"""Runs, CapFilt folders and search indexes that the previous version wrote are read, and continued."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from pyarrow import parquet

from lavis_lite import load_model_and_preprocess
from lavis_lite.common.logs.writers import read_jsonl

FILES = Path(__file__).parent / "fixtures" / "previous_version"

CAPFILT = ["pipe:cat crawl/0.tar", "pipe:cat crawl/1.tar", "pipe:cat crawl/2.tar", "--allow-pipe"]
CAPFILT += ["--captioner", "captioner", "--import", "scorer.py", "--device", "cpu"]
OPTIONS = [
    "batch_size=2",
    "captions_per_image=1",
    "scorers={different_words: {}}",
    "rule=words",
    "threshold=4",
]
OPTIONS += ["generation.use_nucleus_sampling=false", "generation.num_beams=2"]
OPTIONS += ["generation.max_length=10", "generation.min_length=4"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, as the working directory."""
    copy = shutil.copytree(FILES, tmp_path / "previous_version")
    monkeypatch.chdir(copy)
    return copy


def rows(output: Path) -> list[dict[str, Any]]:
    return parquet.read_table(output / "scores.parquet").to_pylist()


def markers(output: Path) -> dict[str, dict[str, Any]]:
    """Return the markers without the digests of parquet files, which differ between versions of pyarrow."""
    contents = {file.name: json.loads(file.read_text()) for file in output.glob("done/*.json")}
    return {
        name: {k: v for k, v in content.items() if k not in ("table", "digest")}
        for name, content in contents.items()
    }


def test_a_run_folder_is_loaded_and_writes_the_captions_that_it_wrote(folder):
    model, processors, _ = load_model_and_preprocess(
        "blip_caption", "tiny", is_eval=True, checkpoint="captioner"
    )
    written = json.loads((folder / "captioner" / "result" / "test.json").read_text())
    images = [f"{record['image_id']:02d}.jpg" for record in written]
    batch = torch.stack([processors["eval"](Image.open(folder / "photos" / name)) for name in images])
    captions = model.generate({"image": batch}, num_beams=2, max_length=12, min_length=1)
    assert captions == [record["caption"] for record in written]


def test_a_run_is_evaluated_with_the_same_metrics(folder, command):
    before = json.loads((folder / "captioner" / "evaluate.json").read_text())
    code, _, error = command("evaluate", "--cfg-path", "captioner", "--options", "run.output_dir=again")
    assert code == 0, error
    after = json.loads((folder / "again" / "evaluate.json").read_text())
    assert after["test"] == pytest.approx(before["test"])
    assert after["made_with"]["weights"] == before["made_with"]["weights"]


def test_a_run_is_reported(folder, command):
    code, _, error = command("report", "captioner")
    assert code == 0, error
    page = (folder / "captioner" / "report.html").read_text()
    assert "CIDEr" in page and "blip_caption" in page
    code, out, error = command("metrics", "retriever")
    assert code == 0 and "txt_r_mean" in out, error


def test_training_continues_from_a_checkpoint(folder, command):
    code, _, error = command("train", "--cfg-path", "captioner", "--options", "run.max_epoch=2")
    assert code == 0, error
    steps = [
        line["step"] for line in read_jsonl(folder / "captioner" / "log.jsonl") if line["kind"] == "train"
    ]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_finished_capfilt_folder_is_recognized_filtered_again_and_reported(folder, command):
    before = markers(folder / "cleaned")
    code, out, error = command("capfilt", "run", *CAPFILT, "-o", "cleaned", "--options", *OPTIONS)
    assert code == 0 and "3 shards done, 0 set aside, 0 damaged" in out, error
    assert markers(folder / "cleaned") == before
    code, out, error = command("capfilt", "refilter", "cleaned", "--threshold", "3", "-o", "kept.json")
    assert code == 0 and "12 of 24 texts kept" in out, error
    code, out, error = command("capfilt", "status", "cleaned")
    assert code == 0 and "12 samples, 9 kept" in out, error
    code, _, error = command("capfilt", "report", "cleaned")
    assert code == 0 and "a small red circle" in (folder / "cleaned" / "report.html").read_text(), error


def test_a_stopped_capfilt_folder_is_continued_to_the_same_result(folder, command):
    assert len(markers(folder / "stopped")) == 1
    code, _, error = command("capfilt", "run", *CAPFILT, "-o", "stopped", "--options", *OPTIONS)
    assert code == 0, error
    assert markers(folder / "stopped") == markers(folder / "cleaned")
    assert rows(folder / "stopped") == rows(folder / "cleaned")
    for path in [*folder.glob("cleaned/shards/*"), folder / "cleaned" / "kept.json"]:
        same = folder / "stopped" / path.relative_to(folder / "cleaned")
        assert same.read_bytes() == path.read_bytes(), path.name


def test_an_index_is_searched(folder, command):
    for line in (folder / "photos.index" / "files.jsonl").read_text().splitlines():
        record = json.loads(line)
        os.utime(folder / "photos" / Path(record["path"]).name, ns=(record["stamp"][1],) * 2)
    words = ["--index", "photos.index", "--checkpoint", "retriever", "--json", "-k", "3"]
    code, out, error = command("search", "a red circle", *words, "--rerank", "0")
    assert code == 0 and len(json.loads(out)) == 3, error
    assert "read again" not in error
    code, out, error = command("search", "--like", "photos/04.jpg", *words)
    assert code == 0 and Path(json.loads(out)[0]["path"]).name == "04.jpg", error
