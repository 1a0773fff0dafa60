"""Images and captions of one's own: beside each other in a folder, in a parquet file, in a hub data set."""

from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from lavis_lite.common.schema import ConfigError
from lavis_lite.datasets.annotations import AnnotationError
from lavis_lite.datasets.builders.custom import CaptionJsonBuilder, ImageFolderBuilder
from lavis_lite.datasets.builders.hf import HuggingFaceBuilder

EYES = {
    "vis_processor": {split: {"name": "blip_image_eval", "image_size": 16} for split in ("train", "eval")}
}


@pytest.fixture
def folder(tmp_path) -> Path:
    for number in range(20):
        image = tmp_path / "photos" / f"album {number % 2}" / f"{number}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (number * 10, 0, 0)).save(image)
        image.with_suffix(".txt").write_text(f"photo {number}\n\n another of {number}\n", encoding="utf-8")
    return tmp_path / "photos"


def test_texts_beside_images_are_their_captions(folder):
    splits = ImageFolderBuilder.from_config({"images": str(folder), **EYES}).build_datasets()
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 32, "val": 2, "test": 2}
    item = splits["val"][0]
    number = item["image_path"].rsplit("/", 1)[1].removesuffix(".jpg")
    assert item["references"] == [f"photo {number}", f"another of {number}"]
    assert splits["train"][0]["image"].shape == (3, 16, 16)


def test_an_image_without_a_text_is_refused_or_left_out(folder):
    (folder / "album 0" / "4.txt").unlink()
    with pytest.raises(AnnotationError, match=r"4\.jpg: has no captions.*uncaptioned: skip"):
        ImageFolderBuilder.from_config({"images": str(folder), **EYES}).build("train")
    settings = {"images": str(folder), "uncaptioned": "skip", **EYES}
    splits = ImageFolderBuilder.from_config(settings).build_datasets()
    assert sum(len({a["image"] for a in dataset.annotations}) for dataset in splits.values()) == 19


def test_a_parquet_file_holds_captions_like_any_other(folder, tmp_path):
    rows = [{"image": f"album {n % 2}/{n}.jpg", "caption": f"photo {n}"} for n in range(20)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "captions.parquet")
    settings = {"images": str(folder), "annotations": str(tmp_path / "captions.parquet"), **EYES}
    splits = CaptionJsonBuilder.from_config(settings).build_datasets()
    assert sum(len(dataset) for dataset in splits.values()) == 20
    (tmp_path / "captions.parquet").write_bytes(b"no parquet")
    with pytest.raises(AnnotationError, match="is not valid parquet"):
        CaptionJsonBuilder.from_config(settings).build("train")


@pytest.fixture
def saved(tmp_path) -> Path:
    rows = [
        {"picture": Image.new("RGB", (20, 10), (n, 0, 0)), "captions": [f"one {n}", f"two {n}"]}
        for n in range(6)
    ]
    features = datasets.Features(
        {"picture": datasets.Image(), "captions": datasets.Sequence(datasets.Value("string"))}
    )
    whole = datasets.Dataset.from_list(rows, features=features)
    split = datasets.DatasetDict({"train": whole.select(range(4)), "validation": whole.select(range(4, 6))})
    split.save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_saved_hub_data_set_has_images_with_captions(saved):
    settings = {"path": str(saved), "image_column": "picture", "caption_column": "captions", **EYES}
    splits = HuggingFaceBuilder.from_config(settings).build_datasets()
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 4, "val": 2}
    item = splits["train"][1]
    assert item["image"].shape == (3, 16, 16) and item["text_input"] in ("one 1", "two 1")
    assert splits["val"][0]["references"] == ["one 4", "two 4"]


def test_a_wrong_column_names_the_nearest(saved):
    settings = {"path": str(saved), "image_column": "pictures", "caption_column": "captions", **EYES}
    with pytest.raises(ConfigError, match=r"no column 'pictures'.*picture"):
        HuggingFaceBuilder.from_config(settings).build("train")
