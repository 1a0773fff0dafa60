"""From the names in annotations to files: found at load, however they are written, or refused with a hint."""

from __future__ import annotations

import io
import json
import logging
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from lavis_lite.commands.datasets import check_images
from lavis_lite.datasets.annotations import AnnotationError
from lavis_lite.datasets.builders.caption import COCOCapBuilder
from lavis_lite.datasets.builders.custom import CaptionJsonBuilder

PROCESSORS = {
    "vis_processor": {split: {"name": "blip_image_eval", "image_size": 16} for split in ("train", "eval")}
}
CAFE = unicodedata.normalize("NFC", "café.jpg")


@pytest.fixture
def images(tmp_path) -> Path:
    root = tmp_path / "photos"
    for name in ("a.jpg", "b.jpg", "Album/c.png", unicodedata.normalize("NFD", CAFE)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10)).save(root / name)
    return root


def settings(images: Path, content: Any, **others: Any) -> dict[str, Any]:
    file = images.parent / "captions.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return {"images": str(images), "annotations": str(file), **PROCESSORS, **others}


def train(images: Path, content: Any, **others: Any) -> Any:
    everything = {"val_fraction": 0.0, "test_fraction": 0.0, **others}
    return CaptionJsonBuilder.from_config(settings(images, content, **everything)).build("train")


@pytest.mark.parametrize(
    ("annotated", "file", "difference"),
    [
        (CAFE, unicodedata.normalize("NFD", CAFE), "composed and decomposed accents"),
        ("A.JPG", "a.jpg", "capitals"),
        ("album/c.PNG", "Album/c.png", "capitals"),
        ("a", "a.jpg", "a missing suffix"),
        ("album/C", "Album/c.png", "capitals, accents, spaces, or a missing suffix"),
    ],
)
def test_a_name_that_one_file_alone_can_mean_is_that_file(images, annotated, file, difference, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = train(images, {annotated: "x", "b.jpg": "y"})
    assert dataset.annotations[0]["image"] == file and dataset[0]["image"].shape == (3, 16, 16)
    assert f"1 of 2 names differ from those of the files in {images} ({difference})" in caplog.text


def test_two_ways_to_write_a_name_are_one_image(images):
    dataset = train(images, {"a.jpg": "one", "A.JPG": "two", "a": "three"}, captions_per_image=1)
    assert [annotation["caption"] for annotation in dataset.annotations] == [["one", "two", "three"]]


def test_a_name_that_could_be_two_files_is_refused(images):
    Image.new("RGB", (20, 10)).save(images / "a.png")
    with pytest.raises(AnnotationError, match=r"image 'A' could be 'a.jpg' or 'a.png'"):
        train(images, {"A": "x"})
    assert train(images, {"a.png": "x"})[0]["image_id"] == "a.png"


@pytest.mark.parametrize(
    ("annotated", "hint"),
    [
        ("photos/a.jpg", "'a.jpg' is there: take 'photos/' out of the names, or set images to"),
        ("c.png", "it is in 'Album': set images to '.*photos/Album'"),
        ("a.png", "'a.jpg' is there, with another suffix"),
        ("b1.jpg", "the nearest name there is 'b.jpg'"),
        ("zzzzzzzz", "the folder holds a.jpg, b.jpg"),
    ],
)
def test_a_wrong_folder_is_refused_at_load_with_what_was_probably_meant(images, annotated, hint):
    with pytest.raises(AnnotationError, match=f"1 of 1 images are not in .*photos: {annotated}.*{hint}"):
        train(images, {annotated: "x"})


def test_an_absolute_path_is_taken_where_it_lies_in_the_folder(images):
    assert train(images, {str(images / "a.jpg"): "x"}).annotations[0]["image"] == "a.jpg"
    with pytest.raises(AnnotationError, match=r"'a\.jpg' is there: take '/home/ann/' out of the names"):
        train(images, {"/home/ann/a.jpg": "x"})


def test_a_few_missing_images_are_named_and_counted(images, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = train(images, {"a.jpg": ["x", "y"], "b.jpg": "y", "gone.jpg": ["z", "zz"]})
    assert "1 of 3 images are not in" in caplog.text and "gone.jpg" in caplog.text
    assert dataset.missing_images == ["gone.jpg"] and dataset.samples_without_file() == 2


def test_published_data_sets_are_checked_too(images):
    (images.parent / "val.json").write_text(json.dumps([{"image": "val2014/1.jpg", "caption": ["x"]}]))
    annotations = {"val": {"storage": str(images.parent / "val.json")}}
    builder = COCOCapBuilder.from_config(
        {"images": str(images), "build_info": {"annotations": annotations}, **PROCESSORS}
    )
    with pytest.raises(
        AnnotationError, match=r"datasets.coco_caption, split 'val': 1 of 1 images are not in"
    ):
        builder.build("val")


def test_checking_lists_all_missing_images_in_place_of_refusing_them(images):
    content = settings(
        images, {"gone.jpg": "x", "lost.jpg": "y", "a.jpg": "z"}, val_fraction=0, test_fraction=0
    )
    (report,) = check_images("caption_json", content, "train")
    assert sorted(image for image, _ in report.bad) == ["gone.jpg", "lost.jpg"]


# ---- ids ----


def evaluation_ids(images: Path, records: list[dict[str, Any]]) -> list[Any]:
    for record in records:
        (images / record["image"]).parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 10)).save(images / record["image"])
    (images.parent / "val.json").write_text(json.dumps(records), encoding="utf-8")
    build_info = {"annotations": {"val": {"storage": str(images.parent / "val.json")}}}
    builder = CaptionJsonBuilder.from_config({"images": str(images), "build_info": build_info, **PROCESSORS})
    return [item["image_id"] for item in builder.build("val")]


NUMBERED = ["x/000000000001.jpg", "y/000000000001.jpg"]


@pytest.mark.parametrize(
    ("names", "further", "expected"),
    [
        (NUMBERED, [{"image_id": 11}, {"image_id": 12}], [11, 12]),
        (NUMBERED, [{"id": "p"}, {"id": "q"}], ["p", "q"]),
        (NUMBERED, [{}, {}], NUMBERED),
        (NUMBERED, [{"image_id": 1}, {"image_id": 1}], NUMBERED),
        (["x/000000000001.jpg", "x/COCO_val2014_000000000002.jpg"], [{}, {}], [1, 2]),
        (["x/000000000001.jpg", "x/other.jpg"], [{}, {}], ["x/000000000001.jpg", "x/other.jpg"]),
        (["x/1.jpg", "x/2.jpg"], [{"image_id": 5}, {}], ["x/1.jpg", "x/2.jpg"]),
    ],
)
def test_no_two_images_of_a_split_have_one_id(images, names, further, expected):
    records = [{"image": name, "caption": "x", **more} for name, more in zip(names, further, strict=True)]
    assert evaluation_ids(images, records) == expected


# ---- images within a parquet file ----


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 10), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def stored(path: Path, images: list[Any], row_group_size: int = 3) -> Any:
    table = pyarrow.table({"image": images, "caption": [f"text {n}" for n in range(len(images))]})
    parquet.write_table(table, path, row_group_size=row_group_size)
    return CaptionJsonBuilder.from_config(
        {"annotations": str(path), "val_fraction": 0.0, "test_fraction": 0.0, **PROCESSORS}
    )


@pytest.mark.parametrize("form", ["paths", "no paths", "bytes"])
def test_images_within_a_parquet_file_are_read_from_there(tmp_path, form):
    contents = [png(number * 20) for number in range(8)]
    images = {
        "paths": [{"bytes": content, "path": f"{n}.png"} for n, content in enumerate(contents)],
        "no paths": [{"bytes": content, "path": None} for content in contents],
        "bytes": contents,
    }[form]
    dataset = stored(tmp_path / "own.parquet", images).build("train")
    assert [dataset[number]["text_input"] for number in range(8)] == [f"text {n}" for n in range(8)]
    names = [annotation["image"] for annotation in dataset.annotations]
    assert names == [f"{n}.png" if form == "paths" else f"own/{n:06d}" for n in range(8)]
    reds = [dataset.open_image(name).getpixel((0, 0))[0] for name in names]
    assert reds == [number * 20 for number in range(8)]


def test_a_row_without_its_image_is_named_and_a_damaged_one_is_a_bad_sample(tmp_path):
    with pytest.raises(AnnotationError, match=r"own.parquet: annotation 4, key 'image': has no image"):
        stored(tmp_path / "own.parquet", [png(1), png(2), png(3), png(4), None]).build("train")
    builder = stored(tmp_path / "bad.parquet", [png(1), png(2)[:40], png(3)])
    with pytest.raises(ValueError, match="row 1 of row group 0: not an image, or damaged"):
        builder.build("train")[1]


def test_a_row_group_too_large_to_read_for_one_image_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("lavis_lite.datasets.annotations.parquet_files.MAX_ROW_GROUP_BYTES", 10)
    with pytest.raises(AnnotationError, match=r"row group 0 is larger than .*row_group_size"):
        stored(tmp_path / "own.parquet", [png(1)]).build("train")
