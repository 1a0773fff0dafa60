"""Noisy shards of drawn images: how many captions are wrong, in which way, and who knows."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import PROJECTS
from PIL import Image

from lavis_lite.common.config.layering import dataset_defaults
from lavis_lite.common.config.schema import parse
from lavis_lite.common.registry import registry
from lavis_lite.datasets.web.index import read_index
from shapes.scene import Scene, numbered_scene
from shapes.truth import Mention, main_object_is_right, mentions
from shapes.web_noise import NOISES, web_caption
from shapes.write_once import ShapesError
from shapes.write_web import WebSettings, read_truth, shard_paths

SMALL = WebSettings(seed=3, samples=50, samples_per_shard=20, drawn_size=32)
CAPTIONS = 400


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SMALL.draw(tmp_path_factory.mktemp("web") / "data")


def noisy(noise: str) -> list[tuple[Scene, Any]]:
    return [(numbered_scene(7, number), web_caption(7, number, noise)) for number in range(CAPTIONS)]


def there(scene: Scene) -> set[Mention]:
    return {Mention(item.colour, item.shape) for item in scene.objects}


def members(folder: Path) -> dict[str, bytes]:
    """Return the files in all shards by name, in order."""
    found: dict[str, bytes] = {}
    for path in shard_paths(folder):
        with tarfile.open(path) as tar:
            found |= {entry.name: tar.extractfile(entry).read() for entry in tar}
    return found


class TestNoise:
    def test_nothing_of_a_mismatched_caption_is_so(self) -> None:
        for scene, caption in noisy("mismatched"):
            claimed = mentions(caption.text)
            assert claimed and not there(scene) & set(claimed)
            assert claimed[0].colour != scene.main.colour and claimed[0].shape != scene.main.shape

    def test_a_mismatched_caption_is_true_of_the_image_that_it_names(self) -> None:
        for scene, caption in noisy("mismatched"):
            of = numbered_scene(7, int(caption.wrong))
            assert main_object_is_right(caption.text, of) and not main_object_is_right(caption.text, scene)

    def test_boilerplate_speaks_of_no_shape(self) -> None:
        texts = [caption.text for _, caption in noisy("boilerplate")]
        assert not any(mentions(text) for text in texts)
        assert len(set(texts)) > 100

    def test_a_half_right_caption_has_one_thing_wrong_in_one_way(self) -> None:
        main_is_right = 0
        for scene, caption in noisy("half_right"):
            claimed = set(mentions(caption.text))
            (wrong,) = {Mention(*caption.wrong.split(" for ")[0].split())}
            right = Mention(*caption.wrong.split(" for ")[1].split())
            assert wrong in claimed - there(scene)
            assert right in there(scene)
            assert (wrong.colour == right.colour) != (wrong.shape == right.shape)
            assert claimed <= there(scene) | {wrong}
            main_is_right += main_object_is_right(caption.text, scene)
        assert 0 < main_is_right < CAPTIONS / 2

    def test_a_clean_caption_is_true(self) -> None:
        for scene, caption in noisy("clean"):
            assert main_object_is_right(caption.text, scene)
            assert set(mentions(caption.text)) <= there(scene)


class TestShards:
    def test_a_sample_is_an_image_a_text_and_a_json(self, written: Path) -> None:
        files = members(written)
        keys = [f"{number:09d}" for number in range(50)]
        assert list(files) == [f"{key}.{end}" for key in keys for end in ("jpg", "txt", "json")]
        for key in keys:
            assert Image.open(io.BytesIO(files[f"{key}.jpg"])).size == (32, 32)
            about = json.loads(files[f"{key}.json"])
            assert about == {"caption": files[f"{key}.txt"].decode(), "width": 32, "height": 32}

    def test_the_index_counts_the_samples_of_each_shard(self, written: Path) -> None:
        index = json.loads((written / "index.json").read_text())
        assert index["samples"] == 50
        assert [shard["samples"] for shard in index["shards"]] == [20, 20, 10]
        for path, shard in zip(shard_paths(written), index["shards"], strict=True):
            assert path.stat().st_size == shard["bytes"]
            with tarfile.open(path) as tar:
                assert len(tar.getnames()) == 3 * shard["samples"]

    def test_the_truth_lies_beside_the_shards(self, written: Path) -> None:
        files, truth = members(written), read_truth(written)
        assert set(truth) == {name.split(".")[0] for name in files}
        for key, known in truth.items():
            assert known.caption == files[f"{key}.txt"].decode()
            assert known.clean == (known.noise == "clean")
            assert len(known.captions) == 5
            assert all(main_object_is_right(caption, known.scene) for caption in known.captions)
            if known.clean:
                assert main_object_is_right(known.caption, known.scene)

    def test_an_image_shows_the_scene_of_the_truth(self, written: Path) -> None:
        files = members(written)
        for key, known in read_truth(written).items():
            image = Image.open(io.BytesIO(files[f"{key}.jpg"]))
            main = known.scene.main
            pixel = image.getpixel((int(main.x * 32), int(main.y * 32)))
            assert all(abs(a - b) < 40 for a, b in zip(pixel, main.rgb, strict=True))

    def test_the_shares_of_noise_are_those_asked_for(self, tmp_path: Path) -> None:
        shares = {"mismatched": 0.3, "boilerplate": 0.1, "half_right": 0.2}
        folder = WebSettings(samples=1000, drawn_size=32, **shares).draw(tmp_path / "data")
        counts = Counter(known.noise for known in read_truth(folder).values())
        for noise, share in {**shares, "clean": 0.4}.items():
            assert abs(counts[noise] / 1000 - share) < 0.045

    @pytest.mark.parametrize("noise", NOISES)
    def test_all_captions_can_have_one_noise(self, tmp_path: Path, noise: str) -> None:
        shares = {name: float(name == noise) for name in NOISES}
        folder = WebSettings(samples=5, drawn_size=32, **shares).draw(tmp_path / "data")
        assert {known.noise for known in read_truth(folder).values()} == {noise}

    def test_more_samples_leave_the_first_as_they_were(self, written: Path, tmp_path: Path) -> None:
        settings = WebSettings(seed=3, samples=70, samples_per_shard=35, drawn_size=32)
        more = members(settings.draw(tmp_path / "data"))
        assert {name: more[name] for name in members(written)} == members(written)

    def test_another_process_writes_the_same_bytes(self, written: Path, tmp_path: Path) -> None:
        code = (
            f"import sys; sys.path.insert(0, {PROJECTS!r}); "
            "from shapes.write_web import WebSettings; "
            "WebSettings(seed=3, samples=50, samples_per_shard=20, drawn_size=32).draw(sys.argv[1])"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "data")], check=True, timeout=60)
        names = sorted(path.name for path in written.iterdir())
        assert names == sorted(path.name for path in (tmp_path / "data").iterdir())
        assert all((written / name).read_bytes() == (tmp_path / "data" / name).read_bytes() for name in names)

    def test_another_seed_gives_other_samples(self, written: Path, tmp_path: Path) -> None:
        settings = WebSettings(seed=4, samples=50, samples_per_shard=20, drawn_size=32)
        other = members(settings.draw(tmp_path / "data"))
        assert sum(other[name] == content for name, content in members(written).items()) < 10

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"samples_per_shard": 0}, "samples_per_shard is 0; give 1 or more"),
            ({"mismatched": 0.8}, "mismatched and boilerplate and half_right sum to 1.1"),
            ({"half_right": -0.1}, "half_right is -0.1; give a share"),
        ],
    )
    def test_impossible_settings_are_refused(
        self, tmp_path: Path, change: dict[str, Any], complaint: str
    ) -> None:
        with pytest.raises(ShapesError, match=complaint):
            WebSettings(**change).draw(tmp_path / "data")


class TestEnsuring:
    def test_shards_are_drawn_once_in_the_cache(self, cache: Path) -> None:
        settings = WebSettings(samples=10, samples_per_shard=4, drawn_size=32)
        folder = settings.draw()
        written_at = (folder / "index.json").stat().st_mtime_ns
        assert folder.parent == cache / "shapes"
        assert [path.name for path in shard_paths(folder)] == [f"shapes-{i:06d}.tar" for i in range(3)]
        assert settings.draw() == folder
        assert (folder / "index.json").stat().st_mtime_ns == written_at

    def test_a_folder_of_ones_own_is_used(self, tmp_path: Path) -> None:
        settings = WebSettings(samples=3, drawn_size=32)
        assert settings.draw(str(tmp_path / "crawl")) == tmp_path / "crawl"

    def test_the_index_is_the_one_that_shards_are_read_by(self, written: Path) -> None:
        assert [entry.samples for entry in read_index(written).values()] == [20, 20, 10]

    def test_the_builder_reads_what_is_drawn(self, tmp_path: Path) -> None:
        settings = {"samples": 6, "samples_per_shard": 3, "drawn_size": 32, "folder": str(tmp_path / "c")}
        builder = registry.get_builder_class("shapes_web").from_config(settings)
        assert builder.shard_patterns() == [str(tmp_path / "c")]

    def test_the_default_yaml_has_the_defaults(self) -> None:
        values = dataset_defaults(registry.get_builder_class("shapes_web"), "shapes_web")
        assert parse(WebSettings, values) == WebSettings()
