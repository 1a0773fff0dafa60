"""Statements about pairs of drawn images: true labels that words alone do not give away."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lavis_lite.common.config.layering import dataset_defaults
from lavis_lite.common.registry import registry
from shapes.pictures import read_scenes
from shapes.scene import COLOURS, SHAPES, Scene
from shapes.statements import HARD_KINDS, PLAIN_KINDS, STATEMENT_KINDS, Pairs
from shapes.write_nlvr import NLVRSettings
from shapes.write_once import ShapesError

SETTINGS = NLVRSettings(seed=3, train_pairs=600, val_pairs=20, test_pairs=40, drawn_size=32)
HARD = NLVRSettings(
    seed=3, train_pairs=300, val_pairs=0, test_pairs=0, drawn_size=32, statement_kinds=HARD_KINDS
)
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SETTINGS.draw(tmp_path_factory.mktemp("nlvr") / "data")


@pytest.fixture(scope="module")
def written_hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return HARD.draw(tmp_path_factory.mktemp("nlvr") / "hard")


def records_of(folder: Path, split: str) -> list[dict[str, Any]]:
    path = folder / "annotations" / f"shapes_nlvr_{split}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def pairs_of(folder: Path, split: str) -> list[tuple[dict[str, Any], Scene, Scene]]:
    scenes = read_scenes(folder, split)
    return [(record, *(scenes[image] for image in record["images"])) for record in records_of(folder, split)]


def shows(scene: Scene, phrase: str) -> bool:
    """Return whether an object has every colour and shape that `phrase` names."""
    words = phrase.split()
    return any(
        set(COLOURS) & set(words) <= {item.colour} and set(SHAPES) & set(words) <= {item.shape}
        for item in scene.objects
    )


def holds(sentence: str, left: Scene, right: Scene) -> bool:
    """Read a sentence afresh, and tell whether it is true."""
    main = left.objects[0], right.objects[0]
    if each := re.fullmatch("one image shows (.*) and the other shows (.*)", sentence):
        first, second = each.groups()
        return any(shows(a, first) and shows(b, second) for a, b in ((left, right), (right, left)))
    if both := re.fullmatch("both images show (.*)", sentence):
        return all(shows(scene, both[1]) for scene in (left, right))
    if more := re.fullmatch("the (left|right) image shows more shapes than the (left|right) image", sentence):
        counts = {"left": len(left.objects), "right": len(right.objects)}
        return counts[more[1]] > counts[more[2]]
    if side := re.fullmatch("the (left|right) image shows (.*)", sentence):
        return shows(left if side[1] == "left" else right, side[2])
    if one := re.fullmatch("only one image shows (.*)", sentence):
        return [shows(left, one[1]), shows(right, one[1])].count(True) == 1
    compared = re.fullmatch("the largest .* of both images have the same (color|shape)", sentence)
    assert compared, sentence
    return main[0].colour == main[1].colour if compared[1] == "color" else main[0].shape == main[1].shape


def test_labels_are_true_of_the_images(written: Path, written_hard: Path) -> None:
    checked = [pair for split in SPLITS for pair in pairs_of(written, split)]
    checked += pairs_of(written_hard, "train")
    assert len(checked) == 960
    assert [r for r, left, right in checked if str(holds(r["sentence"], left, right)) != r["label"]] == []


def test_every_sentence_is_as_often_true_as_false(written: Path, written_hard: Path) -> None:
    for folder in (written, written_hard):
        labels = Counter((r["sentence"], r["label"]) for r in records_of(folder, "train"))
        assert all(labels[sentence, "True"] == labels[sentence, "False"] for sentence, _ in labels)


def test_the_images_alone_give_little_away(written: Path) -> None:
    """The best guess from how alike the two largest objects are, knowing all labels."""
    by_likeness: dict[int, Counter[str]] = {0: Counter(), 1: Counter(), 2: Counter()}
    for record, left, right in pairs_of(written, "train"):
        first, second = left.main, right.main
        likeness = (first.colour == second.colour) + (first.shape == second.shape)
        by_likeness[likeness][record["label"]] += 1
    guessed = sum(max(counts.values()) for counts in by_likeness.values())
    assert guessed < 0.67 * 600


def test_one_image_alone_is_not_enough_for_both(written: Path) -> None:
    chosen = [pair for pair in pairs_of(written, "train") if pair[0]["statement_kind"] == "both"]
    fits_left = [r["label"] for r, left, _ in chosen if shows(left, r["sentence"].split("show ")[1])]
    assert fits_left.count("False") > 0.1 * len(fits_left)


def test_the_side_that_is_named_matters(written: Path) -> None:
    chosen = [pair for pair in pairs_of(written, "train") if pair[0]["statement_kind"] == "side"]
    other_fits = [
        r["label"]
        for r, left, right in chosen
        if shows(right if "left" in r["sentence"] else left, r["sentence"].split("shows ")[1])
    ]
    assert 0.35 < other_fits.count("True") / len(other_fits) < 0.65


def test_the_kinds_are_about_equally_frequent(written: Path, written_hard: Path) -> None:
    for folder, kinds in ((written, PLAIN_KINDS), (written_hard, HARD_KINDS)):
        counts = Counter(r["statement_kind"] for r in records_of(folder, "train"))
        assert set(counts) == set(kinds) < set(STATEMENT_KINDS)
        assert min(counts.values()) > 0.6 * counts.total() / len(kinds)


def test_the_files_have_the_layout_of_nlvr(written: Path) -> None:
    seen: set[str] = set()
    for split, count in (("train", 600), ("val", 20), ("test", 40)):
        records = records_of(written, split)
        assert len(records) == count
        for record in records:
            assert set(record) == {"sentence", "images", "label", "identifier", "statement_kind"}
            assert record["label"] in ("True", "False")
            assert len(set(record["images"])) == 2
            assert all((written / "images" / image).is_file() for image in record["images"])
            assert all(image.startswith(f"{split}/") for image in record["images"])
        seen |= {record["identifier"] for record in records}
    assert len(seen) == 660


def test_swapping_images_and_sides_keeps_the_truth(written: Path) -> None:
    swapped = {"left": "right", "right": "left"}
    for record, left, right in pairs_of(written, "train"):
        sentence = " ".join(swapped.get(word, word) for word in record["sentence"].split())
        assert str(holds(sentence, right, left)) == record["label"]


def test_one_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    first, again, other = (
        NLVRSettings(seed=seed, train_pairs=20, val_pairs=0, test_pairs=0, drawn_size=32).draw(
            tmp_path / name
        )
        for name, seed in (("first", 3), ("again", 3), ("other", 4))
    )
    files = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
    assert len(files) > 60
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in files)
    annotations = Path("annotations") / "shapes_nlvr_train.json"
    assert (first / annotations).read_bytes() != (other / annotations).read_bytes()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"train_pairs": 7}, "train_pairs is 7; give an even number"),
        ({"statement_kinds": ("both", "neither")}, "neither.* give some of both, side, each"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ShapesError, match=complaint):
        NLVRSettings(**change).draw(tmp_path / "data")


def test_too_few_scenes_to_pair_are_an_error(written: Path) -> None:
    scene = next(iter(read_scenes(written, "val").values()))
    with pytest.raises(ValueError, match="2 images are too few"):
        Pairs([scene, scene]).draw(random.Random(0), PLAIN_KINDS)


def test_the_builder_draws_pairs_at_first_use(tmp_path: Path) -> None:
    builder = registry.get_builder_class("shapes_nlvr")
    sizes = {"train_pairs": 4, "val_pairs": 0, "test_pairs": 2, "drawn_size": 32}
    built = builder.from_config({"folder": str(tmp_path / "data"), **sizes}).build("test")
    assert {built[number]["label"] for number in range(2)} == {0, 1}


def test_the_default_yaml_has_the_defaults() -> None:
    builder = registry.get_builder_class("shapes_nlvr")
    assert builder.from_config(dataset_defaults(builder, "shapes_nlvr")).config == builder.Config()
