"""What docs/custom_data.md says works: images of one's own, trained on by config alone."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
from PIL import Image
from processes import run, train_command
from shards import write_shards

from lavis_lite.commands.launch import build_datasets
from lavis_lite.common.config.layering import load_config
from lavis_lite.common.config.schema import ConfigError

TEXTS = ["a red circle", "a blue star above a square"]


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(12):
        Image.effect_noise((40, 40), 60).convert("RGB").save(folder / f"{number}.jpg")
        (folder / f"{number}.txt").write_text("\n".join(TEXTS))
    return folder


def as_folder(photos: Path, tmp_path: Path) -> dict:
    return {"image_folder": {"images": str(photos)}}


def as_file(photos: Path, tmp_path: Path) -> dict:
    (tmp_path / "captions.json").write_text(json.dumps({f"{n}.jpg": TEXTS for n in range(12)}))
    return {"caption_json": {"images": str(photos), "annotations": str(tmp_path / "captions.json")}}


def as_shards(photos: Path, tmp_path: Path) -> dict:
    return {"webdataset_caption": {"shards": f"{write_shards(tmp_path / 'shards', [6, 6])}/*.tar"}}


def as_hub_data_set(photos: Path, tmp_path: Path) -> dict:
    rows = [{"image": str(photos / f"{n}.jpg"), "caption": TEXTS} for n in range(12)]
    features = datasets.Features(
        {"image": datasets.Image(), "caption": datasets.Sequence(datasets.Value("string"))}
    )
    datasets.Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "saved")
    return {"hf_dataset": {"path": str(tmp_path / "saved")}}


def test_more_missing_images_than_may_be_bad_are_refused_before_training(run_file, photos, tmp_path):
    (photos / "3.jpg").unlink()
    run_file.sections["datasets"] = as_file(photos, tmp_path)
    strict = load_config(str(run_file.write(max_bad_fraction=0.01)), [])
    with pytest.raises(
        ConfigError, match=r"2 of 20 training samples have no file.*run.max_bad_fraction \(1.0%\)"
    ):
        build_datasets(strict, ["train"])
    lenient = load_config(str(run_file.write(max_bad_fraction=0.1)), [])
    assert len(build_datasets(lenient, ["train"])["train"][0]) == 20


@pytest.mark.parametrize("section", [as_folder, as_file, as_shards, as_hub_data_set])
def test_images_of_ones_own_are_trained_on(section, run_file, photos, tmp_path):
    run_file.sections["datasets"] = section(photos, tmp_path)
    whole = section in (as_folder, as_file)
    config = run_file.write(
        max_epoch=1,
        batch_size_train=4,
        valid_splits=["val"] if whole else [],
        test_splits=["test"] if whole else [],
    )
    said = run(train_command(config))
    assert said.returncode == 0, said.stderr[-3000:]
    lines = [json.loads(line) for line in (run_file.output / "log.jsonl").read_text().splitlines()]
    assert [line for line in lines if line["kind"] == "train"]
