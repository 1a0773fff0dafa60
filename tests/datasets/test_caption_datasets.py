"""Caption data sets: what is read, what is refused, what an item holds."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.datasets.annotations import AnnotationError
from lavis_lite.datasets.builders import dataset_zoo, load_dataset
from lavis_lite.datasets.builders.caption import COCOCapBuilder
from lavis_lite.datasets.builders.custom import CaptionJsonBuilder

CAPTIONS = {f"photos/{n}.jpg": f"picture number {n}" for n in range(30)}
PROCESSORS = {
    "vis_processor": {split: {"name": "blip_image_eval", "image_size": 16} for split in ("train", "eval")},
    "text_processor": {"train": {"name": "blip_caption", "prompt": "a picture of "}},
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    (root / "photos").mkdir(parents=True)
    for number, name in enumerate(CAPTIONS):
        Image.new("RGB", (20, 10), (number * 8, 0, 0)).save(root / name)
    return root


def write(path: Path, form: str) -> Path:
    records = [{"file_name": image, "text": caption} for image, caption in CAPTIONS.items()]
    if form == "object":
        path.write_text(json.dumps(CAPTIONS), encoding="utf-8")
    elif form == "list":
        path.write_text(json.dumps(records), encoding="utf-8")
    elif form == "jsonl":
        path = path.with_suffix(".jsonl")
        path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    else:
        path = path.with_suffix(".csv")
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["file_name", "text"])
            writer.writeheader()
            writer.writerows(records)
    return path


@pytest.mark.parametrize("form", ["object", "list", "jsonl", "csv"])
def test_own_captions_are_read_from_every_kind_of_file(images, tmp_path, form):
    file = write(tmp_path / "captions.json", form)
    builder = CaptionJsonBuilder.from_config({"images": str(images), "annotations": str(file), **PROCESSORS})
    splits = builder.build_datasets()
    names = [annotation["image"] for dataset in splits.values() for annotation in dataset.annotations]
    assert sorted(names) == sorted(CAPTIONS)  # every image in one split, and in one only
    item = splits["train"][0]
    assert item["image"].shape == (3, 16, 16)
    assert item["text_input"] == "a picture of " + CAPTIONS[item["image_id"]]
    assert splits["val"][0]["references"] == [CAPTIONS[splits["val"][0]["image_id"]]]


@pytest.mark.parametrize(("count", "expected"), [(30, [21, 6, 3]), (3, [1, 1, 1])])
def test_own_captions_are_divided_by_image_the_same_way_every_time(images, tmp_path, count, expected):
    def divide() -> list[list[str]]:
        file = tmp_path / "captions.json"
        file.write_text(json.dumps(dict(list(CAPTIONS.items())[:count])), encoding="utf-8")
        config = {"images": str(images), "annotations": str(file), "val_fraction": 0.2, **PROCESSORS}
        splits = CaptionJsonBuilder.from_config(config).build_datasets()
        return [[a["image"] for a in splits[name].annotations] for name in ("train", "val", "test")]

    assert [len(split) for split in divide()] == expected
    assert divide() == divide()


def test_several_captions_of_an_image_become_one_item(images, tmp_path):
    file = tmp_path / "captions.json"
    file.write_text(json.dumps({"photos/1.jpg": ["one", "uno", "eins"]}), encoding="utf-8")
    config = {"images": str(images), "annotations": str(file), "captions_per_image": 2, **PROCESSORS}
    config |= {"val_fraction": 0.0, "test_fraction": 0.0}
    item = CaptionJsonBuilder.from_config(config).build("train")[0]
    assert len(item["text_input"]) == 2
    assert set(item["text_input"]) < {"a picture of one", "a picture of uno", "a picture of eins"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"caption": "no image"}, r"annotation 1: has no 'image'"),
        ({"image": "a.jpg"}, r"annotation 1: has no 'caption'"),
        ({"image": "a.jpg", "caption": " "}, r"annotation 1, key 'caption': is empty"),
        ({"image": "a.jpg", "caption": ["a list"]}, r"annotation 1, key 'caption': expected one text"),
        ({"image": "a.jpg", "caption": 7}, r"annotation 1, key 'caption': expected a text, found 7"),
        ({"image": "../a.jpg", "caption": "x"}, r"annotation 1, key 'image': '../a.jpg' leaves"),
        ({"image": "/etc/a.jpg", "caption": "x"}, r"annotation 1, key 'image'.*leaves the image folder"),
        ({"image": 3, "caption": "x"}, r"annotation 1, key 'image': expected a file name"),
        ("text", r"annotation 1: expected an object"),
    ],
)
def test_a_bad_annotation_names_file_index_and_key(images, tmp_path, record, message):
    file = tmp_path / "train.json"
    file.write_text(json.dumps([{"image": "photos/1.jpg", "caption": "fine"}, record]), encoding="utf-8")
    builder = COCOCapBuilder.from_config(
        {"images": str(images), "build_info": {"annotations": {"train": {"storage": str(file)}}}}
    )
    with pytest.raises(AnnotationError, match=r"train.json: " + message):
        builder.build("train")


def test_strange_captions_do_not_break_an_item(images, tmp_path):
    texts = ["日本の写真", "a" * 10_000, "line\rbreak\u2028here", "emoji 🦜", "word " * 10_000]
    file = tmp_path / "captions.json"
    file.write_text(json.dumps({f"photos/{n}.jpg": text for n, text in enumerate(texts)}), encoding="utf-8")
    config = {"images": str(images), "annotations": str(file), "val_fraction": 0.0, "test_fraction": 0.0}
    dataset = CaptionJsonBuilder.from_config({**config, **PROCESSORS}).build("train")
    assert all(item["text_input"].startswith("a picture of ") for item in dataset)


def test_coco_annotations_are_checked_against_their_md5(tmp_path, images):
    file = tmp_path / "wrong.json"
    file.write_text("[]", encoding="utf-8")
    annotations = {"val": {"url": file.as_uri(), "md5": "0" * 32, "storage": str(tmp_path / "val.json")}}
    builder = COCOCapBuilder.from_config({"images": str(images), "build_info": {"annotations": annotations}})
    with pytest.raises(OSError, match=r"0{32}"):
        builder.build("val")


def test_a_missing_image_folder_says_what_to_set(tmp_path):
    file = tmp_path / "val.json"
    file.write_text(json.dumps([{"image": "a.jpg", "caption": ["x"]}]), encoding="utf-8")
    builder = COCOCapBuilder.from_config(
        {"images": str(tmp_path / "nowhere"), "build_info": {"annotations": {"val": {"storage": str(file)}}}}
    )
    with pytest.raises(ConfigError, match=r"set datasets\.coco_caption\.images to the folder"):
        builder.build("val")


def test_a_wrong_split_names_the_known_ones(images, tmp_path):
    file = write(tmp_path / "captions.json", "object")
    builder = CaptionJsonBuilder.from_config({"images": str(images), "annotations": str(file)})
    with pytest.raises(ConfigError, match=r"has no split 'valid'. Did you mean val"):
        builder.build("valid")


def test_coco_numbers_come_from_file_names(shapes_folder):
    annotations = {"val": {"storage": str(shapes_folder / "annotations" / "shapes_karpathy_val.json")}}
    settings = {"images": str(shapes_folder / "images"), "build_info": {"annotations": annotations}}
    dataset = COCOCapBuilder.from_config({**settings, **PROCESSORS}).build("val")
    assert [item["image_id"] for item in dataset] == list(range(40, 50))
    assert len(dataset[0]["references"]) == 5


def test_load_dataset_takes_a_config_of_ones_own(tmp_path, images):
    file = write(tmp_path / "captions.json", "object")
    config = tmp_path / "data.yaml"
    config.write_text(f"datasets: {{caption_json: {{annotations: '{file}'}}}}", encoding="utf-8")
    splits = load_dataset("caption_json", cfg_path=str(config), vis_path=str(images))
    assert set(splits) == {"train", "val", "test"}


def test_the_zoo_lists_the_data_sets():
    assert {"coco_caption", "caption_json", "shapes_caption"} <= set(dataset_zoo.get_names())
