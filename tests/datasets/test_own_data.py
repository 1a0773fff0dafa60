"""Images and captions of one's own: beside each other in a folder, in a parquet file, in a hub data set."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import datasets
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from lavis_lite.common.config.schema import ConfigError
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


@pytest.mark.parametrize("suffix", [".caption", ".TXT", ".text"])
def test_captions_may_lie_in_files_of_another_suffix(folder, suffix):
    for text in list(folder.rglob("*.txt")):
        text.rename(text.with_suffix(suffix))
    extension = {"caption_extension": "text"} if suffix == ".text" else {}
    splits = ImageFolderBuilder.from_config({"images": str(folder), **extension, **EYES}).build_datasets()
    assert {split: len(dataset) for split, dataset in splits.items()} == {"train": 32, "val": 2, "test": 2}


def test_an_image_with_two_files_of_captions_is_refused_unless_one_suffix_is_chosen(folder):
    (folder / "album 0" / "4.caption").write_text("tags, of, another, program")
    with pytest.raises(AnnotationError, match=r"'album 0/4.jpg': has captions in 4.txt and in 4.caption"):
        ImageFolderBuilder.from_config({"images": str(folder), **EYES}).build("train")
    settings = {"images": str(folder), "caption_extension": ".txt", **EYES}
    assert len(ImageFolderBuilder.from_config(settings).build("train")) == 32


def test_a_folder_without_any_caption_says_which_files_are_looked_for(folder):
    for text in folder.rglob("*.txt"):
        text.unlink()
    with pytest.raises(AnnotationError, match=r"none of 20 images has captions.*0.txt or 0.caption"):
        ImageFolderBuilder.from_config({"images": str(folder), "uncaptioned": "skip", **EYES}).build("train")


def test_texts_that_are_not_utf_8_are_named_with_line_and_byte(folder):
    (folder / "album 0" / "4.txt").write_bytes("fine\ncaf\xe9".encode("cp1252"))
    (folder / "album 1" / "7.txt").write_bytes(b"a \0 b")
    with pytest.raises(AnnotationError) as error:
        ImageFolderBuilder.from_config({"images": str(folder), **EYES}).build("train")
    assert re.search(r"'album 0/4.txt': line 2, byte 8 \(0xE9\) is not UTF-8", str(error.value))
    assert re.search(r"'album 1/7.txt': line 1: holds a NUL", str(error.value))


def test_only_line_ends_divide_captions(folder):
    (folder / "album 0" / "4.txt").write_text("one\u2028still one\r\ntwo\x0bstill two\r", encoding="utf-8")
    records = ImageFolderBuilder.from_config({"images": str(folder), **EYES}).read([folder], is_train=False)
    captions = {record["image"]: record["caption"] for record in records}
    assert captions["album 0/4.jpg"] == ["one\u2028still one", "two\x0bstill two"]


def test_what_is_left_out_of_a_folder_is_named(folder, caplog):
    (folder / "album 0" / "4.txt").unlink()
    (folder / "album 0" / "6.jpg").unlink()
    with caplog.at_level(logging.WARNING):
        ImageFolderBuilder.from_config({"images": str(folder), "uncaptioned": "skip", **EYES}).build("train")
    assert "1 of 19 images have no captions and are left out: album 0/4.jpg" in caplog.text
    assert "no image beside file album 0/6.txt" in caplog.text


# ---- splits of one's own ----


def own_splits(folder: Path, contents: dict[str, str], **others) -> CaptionJsonBuilder:
    annotations = {}
    for split, content in contents.items():
        suffix = "json" if content.startswith(("{", "[")) else "csv"
        file = folder.parent / f"{split}.{suffix}"
        file.write_text(content, encoding="utf-8")
        annotations[split] = {"storage": str(file)}
    return CaptionJsonBuilder.from_config(
        {"images": str(folder), "build_info": {"annotations": annotations}, **others, **EYES}
    )


SPLITS = {
    "train": '{"album 0/0.jpg": ["one", "two"], "album 1/1.jpg": "three"}',
    "val": "image,caption\nalbum 0/2.jpg,four\nalbum 0/2.jpg,five\n",
    "test": '[{"image": "album 1/3.jpg", "caption": "six"}]',
}


def test_each_split_may_have_a_file_of_its_own_in_any_layout(folder):
    splits = own_splits(folder, SPLITS).build_datasets()
    assert [splits["train"][number]["text_input"] for number in range(3)] == ["one", "two", "three"]
    assert splits["val"][0]["references"] == ["four", "five"] and splits["test"][0]["references"] == ["six"]
    grouped = own_splits(folder, SPLITS, captions_per_image=2).build("train")
    assert len(grouped) == 2 and set(grouped[0]["text_input"]) == {"one", "two"}


def test_images_in_two_splits_are_named(folder, caplog):
    with caplog.at_level(logging.WARNING):
        own_splits(
            folder, {**SPLITS, "test": '{"album 1/1.jpg": "x", "album 1/5.jpg": "y"}'}
        ).build_datasets()
    assert "1 of the 2 images of the split 'test' are in 'train', too: album 1/1.jpg" in caplog.text


def test_a_relative_file_that_is_here_but_not_in_the_cache_says_so(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "own.json").write_text(SPLITS["train"])
    settings = {"images": str(folder), "build_info": {"annotations": {"train": {"storage": "own.json"}}}}
    with pytest.raises(ConfigError, match=r"Relative paths lie below the cache folder; write '.*own\.json'"):
        CaptionJsonBuilder.from_config(settings).build("train")


def from_one_file(folder: Path, content: str) -> CaptionJsonBuilder:
    (folder.parent / "all.csv").write_text(content)
    return CaptionJsonBuilder.from_config(
        {"images": str(folder), "annotations": str(folder.parent / "all.csv"), **EYES}
    )


def test_records_that_name_their_split_are_in_that_split(folder):
    rows = [
        "image,caption,split",
        "album 0/0.jpg,a,restval",
        "album 1/1.jpg,b,Validation",
        "album 0/2.jpg,c,train",
    ]
    builder = from_one_file(folder, "\n".join(rows))
    assert builder.splits() == ["train", "val"]
    splits = {
        split: [a["image"] for a in dataset.annotations]
        for split, dataset in builder.build_datasets().items()
    }
    assert splits == {"train": ["album 0/0.jpg", "album 0/2.jpg"], "val": ["album 1/1.jpg"]}


def test_a_split_that_is_not_known_is_refused_with_its_line(folder):
    rows = ["image,caption,split", "album 0/0.jpg,a,train", "album 1/1.jpg,b,tset", "album 0/2.jpg,c,"]
    with pytest.raises(AnnotationError, match=r"line 3, key 'split': 'tset' is no split\. Did you mean test"):
        from_one_file(folder, "\n".join(rows)).build("train")


# ---- parquet and the hub ----


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


def with_gaps(tmp_path: Path) -> Path:
    image = Image.new("RGB", (20, 10))
    rows = [
        {"image": image, "maybe": image, "caption": "one", "captions": ["one"], "number": 1},
        {"image": image, "maybe": None, "caption": None, "captions": [], "number": 2},
        {"image": image, "maybe": image, "caption": " ", "captions": ["three", ""], "number": 3},
        {"image": image, "maybe": image, "caption": "four", "captions": None, "number": 4},
    ]
    kinds = {"image": datasets.Image(), "maybe": datasets.Image(), "caption": datasets.Value("string")}
    kinds |= {"captions": datasets.Sequence(datasets.Value("string")), "number": datasets.Value("int64")}
    datasets.Dataset.from_list(rows, features=datasets.Features(kinds)).save_to_disk(tmp_path / "gaps")
    return tmp_path / "gaps"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"caption_column": "caption"}, "row 1, column 'caption': has no caption.*\n.*row 2.*is empty"),
        ({"caption_column": "captions"}, "row 1.*an empty text or list.*\n.*row 2.*is empty.*\n.*row 3"),
        ({"image_column": "maybe"}, "row 1, column 'maybe': has no image"),
    ],
)
def test_rows_without_an_image_or_a_caption_are_found_before_training(tmp_path, columns, message):
    settings = {"path": str(with_gaps(tmp_path)), **columns, **EYES}
    with pytest.raises(AnnotationError, match=message) as error:
        HuggingFaceBuilder.from_config(settings).build("train")
    assert "uncaptioned: skip" in str(error.value)
    rest = HuggingFaceBuilder.from_config({**settings, "uncaptioned": "skip"}).build("train")
    assert rest[0]["text_input"] == "one" and len(rest) < 4


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image_column": "caption"}, r"image_column: 'caption' holds no images.*image, maybe"),
        ({"caption_column": "number"}, r"caption_column: 'number' holds neither texts nor lists.*caption"),
        ({"caption_column": "maybe"}, r"caption_column: 'maybe' holds neither texts nor lists"),
    ],
)
def test_a_column_of_another_kind_is_refused_with_those_that_fit(tmp_path, columns, message):
    settings = {"path": str(with_gaps(tmp_path)), **columns, **EYES}
    with pytest.raises(ConfigError, match=message):
        HuggingFaceBuilder.from_config(settings).build("train")


def test_parquet_files_of_a_hub_data_set_are_read_from_a_folder_or_alone(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    file = tmp_path / "repo" / "data" / "train-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    datasets.load_from_disk(str(saved))["train"].to_parquet(str(file))
    for path in (tmp_path / "repo", file):
        settings = {"path": str(path), "image_column": "picture", "caption_column": "captions", **EYES}
        assert len(HuggingFaceBuilder.from_config(settings).build("train")) == 4


@pytest.mark.parametrize("name", ["empty folder", "no such folder"])
def test_a_path_that_holds_no_data_set_is_one_sentence(tmp_path, name, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    (tmp_path / "empty folder").mkdir()
    with pytest.raises(ConfigError, match=rf"hf_dataset.path: .*{name}' cannot be loaded"):
        HuggingFaceBuilder.from_config({"path": str(tmp_path / name)}).build("train")
