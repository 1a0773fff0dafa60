"""Questions about drawn scenes: true answers, fair shares, files in VQA's layout."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from lavis_lite.common.config.layering import dataset_defaults
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import registry
from shapes.pictures import read_scenes
from shapes.questions import QUESTION_TYPES, all_answers, ask, questions
from shapes.scene import COLOURS, SHAPES, Scene, numbered_rng, numbered_scene
from shapes.write_once import ShapesError
from shapes.write_vqa import VQASettings

SMALL = VQASettings(seed=3, train_images=12, val_images=4, test_images=5, drawn_size=32)
COUNTED = 1500


def asked(hard: bool) -> list[tuple[Scene, Any]]:
    """Return pairs of a scene and a question about it."""
    return [
        (scene, question)
        for number in range(COUNTED)
        for scene in [numbered_scene(5, number)]
        for question in questions(scene, numbered_rng(5, number, "questions"), 6, hard=hard)
    ]


@pytest.fixture(scope="module")
def plain() -> list[tuple[Scene, Any]]:
    return asked(hard=False)


@pytest.fixture(scope="module")
def hard() -> list[tuple[Scene, Any]]:
    return asked(hard=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SMALL.draw(tmp_path_factory.mktemp("vqa") / "data")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A builder's, for a folder that is not there yet."""
    folder = tmp_path_factory.mktemp("vqa") / "built"
    sizes = {"train_images": 12, "val_images": 4, "test_images": 5, "drawn_size": 32}
    return {"folder": str(folder), **sizes}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def named_in(words: list[str], scene: Scene) -> list[Any]:
    """Return the objects that fit every word of size, colour and shape among `words`."""
    singular = [word[: -2 if word == "crosses" else -1] if word.endswith("s") else word for word in words]
    singular = [*singular, *words]
    found = list(scene.objects)
    for colour in set(COLOURS) & set(words):
        found = [item for item in found if item.colour == colour]
    for shape in set(SHAPES) & set(singular):
        found = [item for item in found if item.shape == shape]
    if "large" in words and "or" not in words:
        found = [item for item in found if item.size > 0.3]
    if "small" in words and "or" not in words:
        found = [item for item in found if item.size < 0.3]
    return found


def worked_out(question: str, scene: Scene) -> set[str]:
    """Return every answer to `question` that the scene allows, read from its words alone."""
    words = question.rstrip("?").split()
    found = named_in(words, scene)
    if question.startswith("what color"):
        return {item.colour for item in found}
    if question.startswith("what shape is the"):
        return {item.shape for item in found}
    if question.startswith("how many"):
        return {str(len(found))}
    if question.startswith("is there"):
        return {"yes" if found else "no"}
    if "large or small" in question:
        return {"large" if item.size > 0.3 else "small" for item in found}
    if question.startswith("where"):
        return {place_by_thirds(item) for item in found}
    assert question.startswith("what shape is ")
    (seen_from,) = found
    return {item.shape for item in scene.objects if side_of(item, seen_from) in words}


def place_by_thirds(item: Any) -> str:
    down = "top" if item.y < 0.41 else "bottom" if item.y > 0.59 else ""
    across = "left" if item.x < 0.41 else "right" if item.x > 0.59 else ""
    return f"{down} {across}".strip() or "middle"


def side_of(item: Any, seen_from: Any) -> str:
    across, down = item.x - seen_from.x, item.y - seen_from.y
    if abs(across) > abs(down):
        return "left" if across < 0 else "right"
    return "above" if down < 0 else "below" if down > 0 else "itself"


class TestQuestions:
    def test_plain_answers_are_the_only_true_ones(self, plain: list[tuple[Scene, Any]]) -> None:
        assert [q for scene, q in plain if worked_out(q.text, scene) != {q.answer}] == []

    def test_hard_answers_are_the_only_true_ones(self, hard: list[tuple[Scene, Any]]) -> None:
        assert [q for scene, q in hard if worked_out(q.text, scene) != {q.answer}] == []

    def test_plain_questions_name_no_small_object_but_to_ask_its_size(
        self, plain: list[tuple[Scene, Any]]
    ) -> None:
        about_small = {q.type for scene, q in plain if scene.main not in named_in(q.text[:-1].split(), scene)}
        assert about_small == {"size", "yes/no"}  # and who is not there

    def test_hard_questions_ask_who_is_where(self, hard: list[tuple[Scene, Any]]) -> None:
        assert sum(q.type == "relation" and q.answer in SHAPES for _, q in hard) > 100

    def test_yes_and_no_and_sizes_are_about_even(self, plain: list[tuple[Scene, Any]]) -> None:
        for question_type, answers in (("yes/no", ("yes", "no")), ("size", ("large", "small"))):
            counts = Counter(q.answer for _, q in plain if q.type == question_type)
            assert set(counts) == set(answers)
            assert max(counts.values()) < 0.55 * counts.total()

    def test_no_colour_is_a_good_guess(self, plain: list[tuple[Scene, Any]]) -> None:
        counts = Counter(q.answer for _, q in plain if q.type == "color")
        assert set(counts) == set(COLOURS)
        assert max(counts.values()) < 0.2 * counts.total()

    def test_a_question_does_not_tell_its_answer(self, plain: list[tuple[Scene, Any]]) -> None:
        by_text: dict[str, Counter[str]] = defaultdict(Counter)
        for _, q in plain:
            if q.type == "color":
                by_text[q.text][q.answer] += 1
        frequent = [counts for counts in by_text.values() if counts.total() > 50]
        assert frequent
        assert all(max(counts.values()) < 0.3 * counts.total() for counts in frequent)

    def test_every_answer_is_announced_and_given(
        self, plain: list[tuple[Scene, Any]], hard: list[tuple[Scene, Any]]
    ) -> None:
        assert {q.answer for _, q in plain} == set(all_answers())
        assert {q.answer for _, q in hard} == set(all_answers(hard=True))

    def test_an_image_has_one_question_of_a_type(self) -> None:
        types = [q.type for q in questions(numbered_scene(5, 1), numbered_rng(5, 1, "q"), 4)]
        assert len(types) == len(set(types)) == 4

    def test_an_unknown_type_is_refused(self) -> None:
        with pytest.raises(ValueError, match="'taste' is not known; give some of color, shape"):
            ask(numbered_scene(5, 1), numbered_rng(5, 1, "q"), "taste")


class TestFiles:
    def test_train_records_have_ten_answers(self, written: Path) -> None:
        records = read(written / "annotations" / "shapes_vqa_train.json")
        assert len(records) > 30
        for record in records:
            assert set(record) == {"question_id", "image", "question", "answer", "dataset", "question_type"}
            assert record["dataset"] == "vqa"
            assert len(record["answer"]) == 10 and len(set(record["answer"])) == 1

    def test_evaluation_records_have_a_question_id_of_their_own(self, written: Path) -> None:
        records = [
            record
            for split in ("train", "val", "test")
            for record in read(written / "annotations" / f"shapes_vqa_{split}.json")
        ]
        assert len({record["question_id"] for record in records}) == len(records)

    def test_written_answers_are_true_of_the_written_scenes(self, written: Path) -> None:
        for split in ("train", "val", "test"):
            scenes = read_scenes(written, split)
            for record in read(written / "annotations" / f"shapes_vqa_{split}.json"):
                assert (written / "images" / record["image"]).is_file()
                assert worked_out(record["question"], scenes[record["image"]]) == {record["answer"][0]}

    def test_the_answer_list_holds_every_answer(self, written: Path) -> None:
        assert read(written / "annotations" / "answer_list.json") == all_answers()

    def test_one_seed_gives_the_same_bytes(self, written: Path, tmp_path: Path) -> None:
        again = SMALL.draw(tmp_path / "data")
        files = [path.relative_to(written) for path in written.rglob("*") if path.is_file()]
        assert len(files) > 20
        assert all((written / name).read_bytes() == (again / name).read_bytes() for name in files)

    def test_another_seed_gives_other_questions(self, written: Path, tmp_path: Path) -> None:
        other = VQASettings(seed=4, train_images=12, val_images=4, test_images=5, drawn_size=32).draw(
            tmp_path / "data"
        )
        name = Path("annotations") / "shapes_vqa_train.json"
        assert (written / name).read_bytes() != (other / name).read_bytes()

    def test_a_folder_of_other_settings_is_refused(self, written: Path) -> None:
        with pytest.raises(ShapesError, match="hard is False there, True was asked for"):
            VQASettings(seed=3, train_images=12, val_images=4, test_images=5, drawn_size=32, hard=True).draw(
                written
            )

    def test_the_same_settings_find_what_is_there(self, written: Path) -> None:
        before = (written / "shapes.json").stat().st_mtime_ns
        SMALL.draw(written)
        assert (written / "shapes.json").stat().st_mtime_ns == before

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"val_images": -1}, "val_images is -1; give 0 or more"),
            ({"drawn_size": 8}, "drawn_size is 8; give 32 to 1024"),
            ({"question_types": ("color", "taste")}, "taste.* give some of color"),
            ({"questions_per_image": 7}, "questions_per_image is 7; give 1 to 6"),
        ],
    )
    def test_impossible_settings_are_refused(
        self, tmp_path: Path, change: dict[str, Any], complaint: str
    ) -> None:
        with pytest.raises(ShapesError, match=complaint):
            VQASettings(**change).draw(tmp_path / "data")
        assert list(tmp_path.iterdir()) == []

    def test_types_can_be_chosen(self, tmp_path: Path) -> None:
        types = ("color", "count")
        settings = VQASettings(
            train_images=6,
            val_images=0,
            test_images=0,
            drawn_size=32,
            questions_per_image=2,
            question_types=types,
        )
        folder = settings.draw(tmp_path / "data")
        records = read(folder / "annotations" / "shapes_vqa_train.json")
        assert {record["question_type"] for record in records} == set(types) < set(QUESTION_TYPES)


class TestBuilder:
    def test_splits_are_drawn_at_first_use(self, settings: dict[str, Any]) -> None:
        splits = registry.get_builder_class("shapes_vqa").from_config(settings).build_datasets()
        assert splits["train"][0]["weights"] == [1.0]
        item = splits["test"][0]
        assert item["references"] == [item["references"][0]] * 10
        assert item["question_type"] in QUESTION_TYPES
        assert splits["test"].answer_list == all_answers()

    def test_without_a_folder_the_cache_keeps_each_kind_apart(self, cache: Path) -> None:
        builder = registry.get_builder_class("shapes_vqa")
        sizes = {"train_images": 2, "val_images": 0, "test_images": 0, "drawn_size": 32}
        plain, hard = (builder.from_config({**sizes, "hard": hard}).draw() for hard in (False, True))
        assert plain.parent == hard.parent == cache / "shapes"
        assert plain != hard

    def test_settings_that_cannot_be_are_refused_before_anything_is_drawn(self) -> None:
        with pytest.raises(ConfigError, match="questions_per_image: is 9; give 1 to 6"):
            registry.get_builder_class("shapes_vqa").from_config({"questions_per_image": 9})

    def test_an_image_folder_that_would_not_be_read_is_refused(self, settings: dict[str, Any]) -> None:
        builder = registry.get_builder_class("shapes_vqa").from_config({**settings, "images": "photos"})
        with pytest.raises(ConfigError, match=r"shapes_vqa\.images: this data set is drawn"):
            builder.build("train")

    def test_the_default_yaml_has_the_defaults(self) -> None:
        builder = registry.get_builder_class("shapes_vqa")
        by_yaml = builder.from_config(dataset_defaults(builder, "shapes_vqa")).config
        assert by_yaml == builder.Config()
