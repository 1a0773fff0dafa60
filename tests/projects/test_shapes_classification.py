"""Drawn images with a class each."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavis_lite.common.config.layering import dataset_defaults
from lavis_lite.common.registry import registry
from shapes.classes import class_names, class_of
from shapes.pictures import SPLITS, numbers_of, read_scenes
from shapes.scene import COLOURS, SHAPES, numbered_scene
from shapes.write_classification import ClassificationSettings
from shapes.write_once import ShapesError

SMALL = ClassificationSettings(seed=3, train_images=8, val_images=2, test_images=3, drawn_size=48)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SMALL.draw(tmp_path_factory.mktemp("classes") / "data")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_label_names_the_largest_object(written: Path) -> None:
    for split, count in (("train", 8), ("val", 2), ("test", 3)):
        scenes = read_scenes(written, split)
        records = read(written / "annotations" / f"shapes_classification_{split}.json")
        assert len(records) == count
        for record in records:
            assert set(record) == {"image", "label"}
            largest = max(scenes[record["image"]].objects, key=lambda item: item.size)
            assert record["label"] == f"{largest.colour} {largest.shape}"


def test_images_have_the_size_that_was_asked_for(written: Path) -> None:
    records = read(written / "annotations" / "shapes_classification_test.json")
    assert {Image.open(written / "images" / record["image"]).size for record in records} == {(48, 48)}


def test_the_class_file_names_every_class_once(written: Path) -> None:
    names = read(written / "annotations" / "classes.json")
    assert len(set(names)) == len(names) == len(COLOURS) * len(SHAPES)


def test_classes_are_about_equally_frequent() -> None:
    counts = Counter(class_of(numbered_scene(1, number)) for number in range(4800))
    assert set(counts) == set(class_names())
    assert min(counts.values()) > 50
    assert max(counts.values()) < 200


@pytest.mark.parametrize(("label", "names"), [("colour", list(COLOURS)), ("shape", list(SHAPES))])
def test_colour_or_shape_alone_can_be_the_label(tmp_path: Path, label: Any, names: list[str]) -> None:
    settings = ClassificationSettings(train_images=6, val_images=0, test_images=0, drawn_size=32, label=label)
    folder = settings.draw(tmp_path / "data")
    assert read(folder / "annotations" / "classes.json") == names
    scenes = read_scenes(folder, "train")
    for record in read(folder / "annotations" / "shapes_classification_train.json"):
        assert record["label"] == getattr(scenes[record["image"]].main, label)


def test_one_seed_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    again = SMALL.draw(tmp_path / "data")
    files = [path.relative_to(written) for path in written.rglob("*") if path.is_file()]
    assert len(files) > 13
    assert all((written / name).read_bytes() == (again / name).read_bytes() for name in files)


def test_an_unknown_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapesError, match="label is 'taste'; give one of kind, colour, shape"):
        ClassificationSettings(label="taste").draw(tmp_path / "data")  # type: ignore[arg-type]


def test_the_test_split_does_not_depend_on_how_much_there_is_to_train_on(
    written: Path, tmp_path: Path
) -> None:
    settings = ClassificationSettings(seed=3, train_images=9, val_images=1, test_images=3, drawn_size=48)
    more = settings.draw(tmp_path / "data")
    name = Path("scenes") / "test.jsonl"
    assert (written / name).read_bytes() == (more / name).read_bytes()


def test_no_scene_is_in_two_data_sets_or_splits() -> None:
    ranges = [
        numbers_of(f"shapes_{data_set}", split, 1_000_000)
        for data_set in ("web", "vqa", "nlvr", "classification", "video")
        for split in SPLITS
    ]
    starts = sorted(numbers.start for numbers in ranges)
    assert starts[0] >= 10_000_000  # beyond shapes_caption
    assert all(later - earlier >= 1_000_000 for earlier, later in itertools.pairwise(starts))


def test_the_builder_draws_at_first_use_and_numbers_the_classes(tmp_path: Path) -> None:
    builder = registry.get_builder_class("shapes_classification")
    sizes = {"train_images": 4, "val_images": 1, "test_images": 2, "drawn_size": 32}
    built = builder.from_config({"folder": str(tmp_path / "data"), **sizes}).build("test")
    scenes = read_scenes(tmp_path / "data", "test")
    labels = [class_names()[built[number]["label"]] for number in range(2)]
    assert labels == [class_of(scene) for scene in scenes.values()]


def test_the_default_yaml_has_the_defaults() -> None:
    builder = registry.get_builder_class("shapes_classification")
    assert builder.from_config(dataset_defaults(builder, "shapes_classification")).config == builder.Config()
