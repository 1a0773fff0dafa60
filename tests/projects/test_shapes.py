"""The drawn data set: its worlds, their captions, and what is written of them."""

from __future__ import annotations

import hashlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import PROJECTS
from PIL import Image
from pycocotools.coco import COCO

from lavis_lite.common.config.schema import ConfigError
from shapes import lexicon
from shapes.grammar import all_words, captions
from shapes.render import render
from shapes.scene import (
    COLOURS,
    LEAST_CONTRAST,
    SHAPES,
    TINTS,
    Background,
    Scene,
    SceneObject,
    contrast,
    direction_of,
    numbered_rng,
    numbered_scene,
    place_of,
)
from shapes.truth import Mention, main_object_is_right, mentions
from shapes.write_caption import CaptionSettings
from shapes.write_once import WORLD_VERSION, ShapesError

SMALL = CaptionSettings(seed=3, train_images=6, val_images=2, test_images=3, drawn_size=48)
WRITE = (
    f"import sys; sys.path.insert(0, {PROJECTS!r}); from shapes.write_caption import CaptionSettings; "
    "settings = CaptionSettings(seed=3, train_images=int(sys.argv[2]), val_images=2, test_images=3, "
    "drawn_size=48); settings.draw(sys.argv[1])"
)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [numbered_scene(42, number) for number in range(1500)]


@pytest.fixture(scope="module")
def texts(scenes: list[Scene]) -> list[list[str]]:
    return [captions(scene, numbered_rng(42, number, "captions")) for number, scene in enumerate(scenes)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SMALL.draw(tmp_path_factory.mktemp("shapes") / "data")


def read(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def scene_of(*objects: tuple[str, str, float, float, float]) -> Scene:
    """Return a plain gray scene of (shape, colour, x, y, size)."""
    return Scene(
        Background("plain", "gray", angle=0, cells=4, noise_seed=0),
        tuple(
            SceneObject(shape, colour, x, y, size, tilt=0, rgb=COLOURS[colour])
            for shape, colour, x, y, size in objects
        ),
    )


def count_pixels(scene: Scene, item: SceneObject, side: int = 96) -> int:
    """Return how many pixels show `item`, which must have a colour of its own."""
    image = render(scene, side)
    return sum(number for number, pixel in image.getcolors(side * side) if pixel == item.rgb)


class TestScenes:
    def test_a_scene_depends_on_the_seed_and_its_number(self) -> None:
        assert numbered_scene(1, 5) == numbered_scene(1, 5)
        assert numbered_scene(1, 5) != numbered_scene(1, 6)
        assert numbered_scene(1, 5) != numbered_scene(2, 5)

    def test_a_seed_means_the_same_on_every_system(self, scenes: list[Scene], texts: list[list[str]]) -> None:
        told = json.dumps([[scene.to_json() for scene in scenes], texts])
        digest = hashlib.sha256(told.encode()).hexdigest()[:16]
        # whoever changes the worlds on purpose changes both
        assert (WORLD_VERSION, digest) == (1, "4d2520288d64c510")

    def test_a_scene_survives_json(self, scenes: list[Scene]) -> None:
        for scene in scenes[:100]:
            assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene

    def test_json_of_no_scene_is_refused_with_its_place(self) -> None:
        values = numbered_scene(42, 0).to_json()
        values["objects"][0]["colour"] = "mauve"
        with pytest.raises(ConfigError, match=r"scene\.objects\[0\]\.colour: is 'mauve', not one of red"):
            Scene.from_json(values)

    def test_every_shape_and_colour_is_about_equally_often_the_main_one(self, scenes: list[Scene]) -> None:
        for kinds, names in (
            (Counter(scene.main.shape for scene in scenes), SHAPES),
            (Counter(scene.main.colour for scene in scenes), COLOURS),
        ):
            assert set(kinds) == set(names)
            assert max(kinds.values()) < 1.5 * min(kinds.values())

    def test_objects_lie_inside_the_image_and_do_not_touch(self, scenes: list[Scene]) -> None:
        for scene in scenes:
            for i, item in enumerate(scene.objects):
                rounding = 0.001
                assert item.reach - rounding <= min(item.x, item.y)
                assert max(item.x, item.y) <= 1 - item.reach + rounding
                for other in scene.objects[:i]:
                    distance = ((item.x - other.x) ** 2 + (item.y - other.y) ** 2) ** 0.5
                    assert distance > item.reach + other.reach

    def test_no_small_object_looks_like_the_main_one(self, scenes: list[Scene]) -> None:
        for scene in scenes:
            assert (scene.main.shape, scene.main.colour) not in [(o.shape, o.colour) for o in scene.others]

    def test_every_object_stands_out_from_its_background(self, scenes: list[Scene]) -> None:
        for scene in scenes:
            dark, light = TINTS[scene.background.tint]
            for share in (0.0, 0.25, 0.5, 0.75, 1.0):
                shade = tuple(round(a + share * (b - a)) for a, b in zip(dark, light, strict=True))
                for item in scene.objects:
                    assert contrast(COLOURS[item.colour], shade) >= LEAST_CONTRAST - 5
                    assert contrast(item.rgb, shade) >= LEAST_CONTRAST - 40  # with the painter's jitter

    def test_the_colours_are_well_apart(self) -> None:
        names = list(COLOURS)
        for i, first in enumerate(names):
            for second in names[:i]:
                assert contrast(COLOURS[first], COLOURS[second]) > 150


class TestPlaces:
    @pytest.mark.parametrize(
        ("x", "y", "place"),
        [
            (0.5, 0.5, "middle"),
            (0.3, 0.5, "left"),
            (0.52, 0.7, "bottom"),
            (0.7, 0.3, "top right"),
            (0.59, 0.5, None),
        ],
    )
    def test_a_place_is_named_only_where_it_is_clear(self, x: float, y: float, place: str | None) -> None:
        assert place_of(scene_of(("circle", "red", x, y, 0.4)).main) == place

    @pytest.mark.parametrize(
        ("x", "y", "direction"),
        [
            (0.1, 0.5, "left"),
            (0.9, 0.6, "right"),
            (0.5, 0.1, "above"),
            (0.4, 0.9, "below"),
            (0.9, 0.9, "near"),
        ],
    )
    def test_directions_are_those_of_the_image(self, x: float, y: float, direction: str) -> None:
        scene = scene_of(("circle", "red", 0.5, 0.5, 0.4), ("star", "blue", x, y, 0.2))
        assert direction_of(scene.others[0], scene.main) == direction


class TestRendering:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_main_object_covers_far_more_than_any_small_one(self, shape: str) -> None:
        scene = scene_of((shape, "red", 0.35, 0.35, 0.38), ("circle", "blue", 0.8, 0.8, 0.22))
        assert count_pixels(scene, scene.main) > 1.8 * count_pixels(scene, scene.others[0])

    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_main_object_is_at_least_a_third_of_the_image_wide(self, shape: str) -> None:
        scene = scene_of((shape, "red", 0.5, 0.5, 0.38))
        image = render(scene, 96)
        columns = [x for x in range(96) if any(image.getpixel((x, y)) == scene.main.rgb for y in range(96))]
        assert max(columns) - min(columns) + 1 >= 32

    def test_an_object_is_painted_where_the_scene_says(self, scenes: list[Scene]) -> None:
        for scene in scenes[:60]:
            image = render(scene, 96)
            for item in scene.objects:
                assert image.getpixel((int(item.x * 96), int(item.y * 96))) == item.rgb

    def test_no_shape_reaches_beyond_its_reach(self) -> None:
        for shape in SHAPES:
            scene = scene_of((shape, "red", 0.5, 0.5, 0.5))
            image, ground = render(scene, 96), TINTS["gray"][1]
            for x in range(96):
                for y in range(96):
                    beyond = (x - 47.5) ** 2 + (y - 47.5) ** 2 > (scene.main.reach * 96 + 1) ** 2
                    assert not beyond or image.getpixel((x, y)) == ground

    def test_edges_are_smooth(self) -> None:
        scene = scene_of(("circle", "red", 0.5, 0.5, 0.4))
        assert len(render(scene, 96).getcolors()) > 10

    @pytest.mark.parametrize("pattern", ["gradient", "stripes", "checks", "noise"])
    @pytest.mark.parametrize("angle", [0, 45, 90, 135])
    def test_a_background_stays_between_the_shades_of_its_tint(self, pattern: str, angle: int) -> None:
        item = SceneObject("circle", "red", 0.5, 0.5, 0.4, 0, TINTS["teal"][0])
        scene = Scene(Background(pattern, "teal", angle, cells=5, noise_seed=1), (item,))  # type: ignore[arg-type]
        bands = render(scene, 64).getextrema()
        dark, light = TINTS["teal"]
        assert all(d <= low < high <= b for (low, high), d, b in zip(bands, dark, light, strict=True))

    def test_an_image_too_small_to_tell_shapes_in_is_refused(self) -> None:
        with pytest.raises(ValueError, match="image_size is 8"):
            render(numbered_scene(42, 0), 8)


class TestCaptions:
    def test_five_captions_differ_from_one_another(self, texts: list[list[str]]) -> None:
        assert all(len(set(five)) == 5 for five in texts)

    def test_every_caption_names_the_main_object_first(
        self, scenes: list[Scene], texts: list[list[str]]
    ) -> None:
        wrong = [
            text
            for scene, five in zip(scenes, texts, strict=True)
            for text in five
            if not main_object_is_right(text, scene)
        ]
        assert wrong == []

    def test_no_caption_suits_a_scene_with_another_main_object(
        self, scenes: list[Scene], texts: list[list[str]]
    ) -> None:
        tried = accepted = 0
        for scene, other, five in zip(scenes, scenes[7:], texts, strict=False):
            if (scene.main.shape, scene.main.colour) != (other.main.shape, other.main.colour):
                tried += len(five)
                accepted += sum(main_object_is_right(text, other) for text in five)
        assert tried > 5000
        assert accepted == 0

    def test_everything_mentioned_is_in_the_scene(self, scenes: list[Scene], texts: list[list[str]]) -> None:
        for scene, five in zip(scenes, texts, strict=True):
            there = {Mention(item.colour, item.shape) for item in scene.objects}
            assert {mention for text in five for mention in mentions(text)} <= there

    def test_directions_in_captions_are_true(self, scenes: list[Scene], texts: list[list[str]]) -> None:
        words = {
            phrase: name
            for name, phrases in lexicon.RELATIONS.items()
            for phrase in phrases
            if name != "near"
        }
        pattern = re.compile(rf"(?<!its) ({'|'.join(sorted(words, key=len, reverse=True))}) (?:an?|the) ")
        checked = 0
        for scene, five in zip(scenes, texts, strict=True):
            for text in five:
                said = pattern.search(text)
                if said:
                    companion = mentions(text)[1]
                    true = {
                        direction_of(scene.main, item)
                        for item in scene.others
                        if Mention(item.colour, item.shape) == companion
                    }
                    assert words[said.group(1)] in true, text
                    checked += 1
        assert checked > 500

    def test_backgrounds_in_captions_are_true(self, scenes: list[Scene], texts: list[list[str]]) -> None:
        for scene, five in zip(scenes, texts, strict=True):
            others = set(TINTS) - {scene.background.tint}
            for pattern, words in lexicon.PATTERNS.items():
                others |= set(words) if pattern != scene.background.pattern else set()
            assert not others & set(re.findall("[a-z]+", " ".join(five).lower()))

    def test_the_words_are_exactly_those_announced(self, texts: list[list[str]]) -> None:
        said = set(re.findall("[a-z]+", " ".join(text for five in texts for text in five).lower()))
        assert said == all_words()

    def test_captions_are_sentences(self, texts: list[list[str]]) -> None:
        sentence = re.compile(r"[A-Z][a-z]*(?:,? [a-z]+)+\.")
        assert [text for five in texts for text in five if not sentence.fullmatch(text)] == []
        assert not any(re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", text) for five in texts for text in five)

    def test_the_wordings_vary(self, texts: list[list[str]]) -> None:
        assert len({text for five in texts for text in five}) > 0.6 * 5 * len(texts)

    def test_more_captions_than_there_are_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="number is 3000, but only"):
            captions(scene_of(("circle", "red", 0.5, 0.5, 0.4)), random.Random(0), 3000)


class TestTruth:
    @pytest.mark.parametrize(
        ("caption", "claims"),
        [
            ("a red circle", [("red", "circle")]),
            ("A big RED, rather round disc!", [("red", "circle")]),
            ("the square is blue", [("blue", "square")]),
            ("the box on the left side is blue", [("blue", "square")]),
            ("a star that is big and violet", [("purple", "star")]),
            ("a heart in red", [("red", "heart")]),
            ("the circle is red and the square is blue", [("red", "circle"), ("blue", "square")]),
            ("the largest one is a green plus sign", [("green", "cross")]),
            ("a white triangle and two small black boxes", [("white", "triangle"), ("black", "square")]),
            ("a circle and a red square", [(None, "circle"), ("red", "square")]),
            ("the circle is next to a red square", [(None, "circle"), ("red", "square")]),
            ("the circle next to a red square is blue", [(None, "circle"), ("red", "square")]),
            ("a red blue circle", [(None, "circle")]),
            ("a red red circle", [("red", "circle")]),
            ("something red on a circle", [(None, "circle")]),
            ("a pink background", []),
            ("", []),
        ],
    )
    def test_a_caption_claims(self, caption: str, claims: list[tuple[str | None, str]]) -> None:
        assert mentions(caption) == [Mention(*claim) for claim in claims]

    def test_the_first_mention_decides(self) -> None:
        scene = scene_of(("circle", "red", 0.3, 0.3, 0.4), ("star", "blue", 0.8, 0.8, 0.2))
        assert main_object_is_right("a red disc beside a blue star", scene)
        assert not main_object_is_right("a blue star beside a red disc", scene)
        assert not main_object_is_right("a circle", scene)
        assert not main_object_is_right("", scene)


class TestWriting:
    def test_the_layout_is_that_of_the_karpathy_split(self, written: Path) -> None:
        assert {name for name in hashes(written) if not name.startswith("images/")} == {
            "annotations/shapes_karpathy_train.json",
            "annotations/shapes_karpathy_val.json",
            "annotations/shapes_karpathy_test.json",
            "annotations/shapes_karpathy_val_gt.json",
            "annotations/shapes_karpathy_test_gt.json",
            "scenes/train.jsonl",
            "scenes/val.jsonl",
            "scenes/test.jsonl",
            "shapes.json",
        }
        images = [path.relative_to(written / "images").as_posix() for path in written.rglob("*.jpg")]
        splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 3
        assert sorted(images) == sorted(f"{split}/{number:012d}.jpg" for number, split in enumerate(splits))

    def test_train_has_one_entry_a_caption(self, written: Path) -> None:
        entries = read(written / "annotations/shapes_karpathy_train.json")
        assert len(entries) == 6 * 5
        assert entries[5]["image"] == "train/000000000001.jpg"
        assert entries[5]["image_id"] == "shapes_1"
        assert [entry["caption"] for entry in entries[5:10]] == captions(
            numbered_scene(3, 1), numbered_rng(3, 1, "captions")
        )

    def test_val_and_test_have_one_entry_an_image(self, written: Path) -> None:
        entries = read(written / "annotations/shapes_karpathy_test.json")
        assert [entry["image"] for entry in entries] == [f"test/{n:012d}.jpg" for n in (8, 9, 10)]
        assert all(len(set(entry["caption"])) == 5 for entry in entries)

    @pytest.mark.parametrize("split", ["val", "test"])
    def test_coco_reads_the_ground_truth(self, written: Path, split: str) -> None:
        coco = COCO(written / f"annotations/shapes_karpathy_{split}_gt.json")
        entries = read(written / f"annotations/shapes_karpathy_{split}.json")
        assert coco.getImgIds() == [int(Path(entry["image"]).stem) for entry in entries]
        for entry in entries:
            references = coco.imgToAnns[int(Path(entry["image"]).stem)]
            assert [reference["caption"] for reference in references] == entry["caption"]

    def test_the_images_show_the_scenes_beside_them(self, written: Path) -> None:
        for split in ("train", "val", "test"):
            for line in (written / f"scenes/{split}.jsonl").read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                scene = Scene.from_json(record["scene"])
                assert scene == numbered_scene(3, int(Path(record["image"]).stem))
                with Image.open(written / "images" / record["image"]) as image:
                    assert (image.size, image.mode, image.format) == ((48, 48), "RGB", "JPEG")
                    shown = image.getpixel((int(scene.main.x * 48), int(scene.main.y * 48)))
                assert all(abs(a - b) < 12 for a, b in zip(shown, scene.main.rgb, strict=True))

    def test_the_same_seed_gives_the_same_files(self, written: Path, tmp_path: Path) -> None:
        assert hashes(SMALL.draw(tmp_path / "again")) == hashes(written)

    def test_another_seed_gives_other_images(self, written: Path, tmp_path: Path) -> None:
        other = hashes(replace(SMALL, seed=4).draw(tmp_path / "other"))
        mine = hashes(written)
        assert not [name for name in mine if name.endswith(".jpg") and mine[name] == other[name]]

    def test_more_training_images_leave_the_first_ones_as_they_were(
        self, written: Path, tmp_path: Path
    ) -> None:
        more = hashes(replace(SMALL, train_images=8).draw(tmp_path / "more"))
        train = {name: value for name, value in hashes(written).items() if name.startswith("images/train")}
        assert train.items() <= more.items()

    def test_asking_again_returns_without_writing(self, tmp_path: Path) -> None:
        folder = SMALL.draw(tmp_path / "data")
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        SMALL.draw(folder)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    def test_using_a_written_data_set_touches_nothing_beside_it(self, tmp_path: Path) -> None:
        folder = SMALL.draw(tmp_path / "data")
        for lock in tmp_path.glob("*.lock"):
            lock.unlink()
        SMALL.draw(folder)
        assert [path.name for path in tmp_path.iterdir()] == ["data"]

    def test_other_settings_are_refused_and_named(self, written: Path) -> None:
        before = hashes(written)
        with pytest.raises(
            ShapesError, match=r"image_size is 48 there, 64 was asked for; train is 6 there, 7"
        ):
            replace(SMALL, drawn_size=64, train_images=7).draw(written)
        assert hashes(written) == before

    def test_a_folder_with_something_else_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos/dog.jpg").write_bytes(b"dog")
        with pytest.raises(ShapesError, match=r"photos: is not a drawn data set .* choose another folder"):
            SMALL.draw(tmp_path / "photos")
        assert (tmp_path / "photos/dog.jpg").read_bytes() == b"dog"

    def test_an_empty_folder_is_filled(self, written: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert hashes(SMALL.draw(tmp_path / "empty")) == hashes(written)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("train_images", -1), ("test_images", -2), ("drawn_size", 8), ("drawn_size", 5000)],
    )
    def test_impossible_settings_are_refused(self, tmp_path: Path, name: str, value: int) -> None:
        with pytest.raises(ShapesError, match=f"{name} is {value}; give"):
            replace(SMALL, **{name: value}).draw(tmp_path / "data")
        assert list(tmp_path.iterdir()) == []

    def test_an_interrupted_writing_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scenes: list[Scene] = []

        def interrupted(scene: Scene, image_size: int) -> Image.Image:
            scenes.append(scene)
            if len(scenes) == 4:
                raise KeyboardInterrupt
            return render(scene, image_size)

        monkeypatch.setattr("shapes.pictures.render", interrupted)
        with pytest.raises(KeyboardInterrupt):
            SMALL.draw(tmp_path / "data")
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []

    @pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
    def test_a_killed_writing_is_never_seen_and_is_begun_anew(self, written: Path, tmp_path: Path) -> None:
        folder, aside = tmp_path / "data", tmp_path / ".data.tmp"
        process = subprocess.Popen([sys.executable, "-c", WRITE, str(folder), "100000"])
        deadline = time.monotonic() + 60
        while not list(aside.glob("images/train/*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert list(aside.glob("images/train/*"))
        assert not folder.exists()
        assert hashes(SMALL.draw(folder)) == hashes(written)
        assert not aside.exists()

    def test_processes_that_ask_at_once_share_one_writing(self, written: Path, tmp_path: Path) -> None:
        command = [sys.executable, "-c", WRITE, str(tmp_path / "data"), "6"]
        processes = [subprocess.Popen(command) for _ in range(3)]
        assert [process.wait(60) for process in processes] == [0, 0, 0]
        assert hashes(tmp_path / "data") == hashes(written)
