"""Listing, checking, showing, sharding and fetching data sets, as the commands do."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from conftest import SHAPES
from file_server import CONTENT, running_server
from PIL import Image
from processes import run

from lavis_lite.commands.datasets import check_images, dataset_settings, list_datasets
from lavis_lite.commands.download import download
from lavis_lite.commands.shards import make_shards, shard_info
from lavis_lite.common.config.layering import default_path
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import UnknownNameError, registry
from lavis_lite.common.storage.cache import cache_root
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder
from lavis_lite.datasets.web.shards import list_shards, raw_samples

SMALL = ["train_images=12", "val_images=2", "test_images=2", "drawn_size=32"]


@pytest.fixture
def drawn(tmp_path) -> dict:
    return dataset_settings("shapes_caption", [*SMALL, f"folder={tmp_path / 'drawn'}"])


def command(*words: str):
    import sys

    return run([sys.executable, "-m", "lavis_lite", *words])


def test_the_list_says_what_each_data_set_is_and_which_files_are_here():
    rows = {name: (state, text) for name, state, text in list_datasets()}
    assert rows["shapes_vqa"][0] == "yours" and rows["coco_caption"] == (
        "none",
        "COCO captions, Karpathy split.",
    )
    assert all(text.endswith((".", "own.")) for _, text in rows.values())
    place = cache_root() / "flickr30k/annotations/val.json"
    place.parent.mkdir(parents=True)
    place.write_text("[]")
    assert {name: state for name, state, _ in list_datasets()}["flickr30k"] == "val"
    place.unlink()


def test_the_list_shows_a_data_set_of_the_users_own_that_has_no_description():
    @registry.register_builder("undocumented")
    class Undocumented(BaseDatasetBuilder):
        pass

    assert ("undocumented", "yours", "(no description)") in list_datasets()


def test_the_data_sets_of_a_plug_in_are_known_once_it_is_imported():
    listed = command("datasets")
    assert listed.returncode == 0 and "coco_caption" in listed.stdout and "shapes_" not in listed.stdout
    imported = command("datasets", "--import", SHAPES)
    assert "shapes_caption" in imported.stdout and "shapes_web" in imported.stdout
    unknown = command("datasets", "check", "shapes_caption")
    assert unknown.returncode == 1 and "Traceback" not in unknown.stderr
    assert "No dataset builder is called 'shapes_caption'" in unknown.stderr
    assert "--import ./projects/shapes" in unknown.stderr


def test_an_unknown_data_set_names_the_nearest():
    with pytest.raises(UnknownNameError, match="coco_caption"):
        dataset_settings("coco_captions", [])


def test_checking_opens_every_image_and_counts_what_is_wrong(drawn):
    assert [report.bad for report in check_images("shapes_caption", drawn)] == [[], [], []]
    images = sorted(Path(drawn["folder"]).glob("images/train/*.jpg")) or sorted(
        Path(drawn["folder"]).rglob("*train*/*.jpg")
    )
    images[0].unlink()
    images[3].write_bytes(images[3].read_bytes()[:150])
    (report,) = check_images("shapes_caption", drawn, "train")
    assert report.images == 12
    assert sorted(Path(image).name for image, _ in report.bad) == [images[0].name, images[3].name]
    assert report.causes == {"missing": 1, "cannot be read": 1}


def test_the_command_fails_when_an_image_is_missing(tmp_path):
    words = ["datasets", "check", "shapes_caption", "--split", "val", "--options", *SMALL]
    words += [f"folder={tmp_path / 'drawn'}", "--import", SHAPES]
    good = command(*words)
    assert good.returncode == 0 and "2 images, 0 cannot be used" in good.stdout, good.stderr
    for image in (tmp_path / "drawn").rglob("*.jpg"):
        image.unlink()
    bad = command(*words)
    assert bad.returncode == 1 and "2 missing" in bad.stdout


def test_a_page_shows_images_before_and_after_the_processor_and_escapes_texts(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.effect_noise((60, 40), 50).convert("RGB").save(photos / "a.jpg")
    (tmp_path / "own.json").write_text(json.dumps({"a.jpg": "a <b>bold</b> & risky text"}))
    page = tmp_path / "page.html"
    words = ["datasets", "show", "caption_json", "-o", str(page), "--options", f"images={photos}"]
    words += [f"annotations={tmp_path / 'own.json'}", "val_fraction=0", "test_fraction=0"]
    said = command(*words)
    assert said.returncode == 0, said.stderr
    html = page.read_text()
    assert html.count("data:image/jpeg;base64,") == 2
    assert "a &lt;b&gt;bold&lt;/b&gt; &amp; risky text" in html and "<b>bold" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_shards_hold_the_very_bytes_of_the_images(drawn, tmp_path):
    shards = make_shards("shapes_caption", drawn, "val", tmp_path / "shards", 2)
    assert sum(shard["samples"] for shard in shards) == 2
    (raw, _) = (
        raw for shard in list_shards([str(tmp_path / "shards")]) for raw in raw_samples(shard, pytest.fail)
    )
    annotation = json.loads(raw["json"])
    original = next(Path(drawn["folder"]).rglob(Path(annotation["image"]).name))
    assert raw["jpg"] == original.read_bytes()
    assert raw["txt"].decode() == annotation["caption"][0]


def test_the_same_data_gives_the_same_shards(drawn, tmp_path):
    first, second = (
        make_shards("shapes_caption", drawn, "train", tmp_path / name, 25) for name in ("first", "second")
    )
    assert first == second and [shard["samples"] for shard in first] == [25, 25, 10]
    for shard in first:
        name = shard["name"]
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_an_index_gives_the_counts_that_readers_trust(drawn, tmp_path):
    make_shards("shapes_caption", drawn, "train", tmp_path, 25)
    assert [shard.samples for shard in list_shards([str(tmp_path)])] == [25, 25, 10]


def test_damage_is_reported(drawn, tmp_path):
    make_shards("shapes_caption", drawn, "train", tmp_path, 25)
    second = sorted(tmp_path.glob("*.tar"))[1]
    second.write_bytes(second.read_bytes()[: second.stat().st_size // 2 + 77])
    reports = shard_info([str(tmp_path)])
    assert [bool(report.errors) for report in reports] == [False, True, False]
    assert 0 < reports[1].samples < 25 and reports[0].members == {"jpg": 25, "txt": 25, "json": 25}
    said = command("shards", "info", str(tmp_path))
    assert said.returncode == 1 and "3 shards" in said.stdout and "1 damaged" in said.stdout


def test_a_data_set_without_files_cannot_be_sharded(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w"):
        pass
    settings = dataset_settings("webdataset_caption", [f"shards={tmp_path / 'a.tar'}"])
    with pytest.raises(ConfigError, match="no data set of image files"):
        make_shards("webdataset_caption", settings, "train", tmp_path / "out", 10)


def test_what_must_be_fetched_by_hand_is_said_with_its_place():
    fetched = download("ok_vqa")
    assert not fetched.files and not fetched.failures
    assert any(str(cache_root() / "okvqa/annotations/okvqa_train.json") in text for text in fetched.by_hand)
    assert any(str(cache_root() / "coco/images") in text and "train2014" in text for text in fetched.by_hand)


def test_every_default_config_begins_by_saying_what_the_data_set_is():
    folder = default_path("datasets", "coco_caption").parent
    assert all(path.read_text().startswith("# ") for path in folder.glob("*.yaml"))


def test_annotations_are_fetched_once_checked_and_put_in_their_place(monkeypatch, tmp_path):
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path))
    splits = ("train", "val", "test")
    with running_server() as server:
        address = f"http://127.0.0.1:{server.server_port}"
        urls = [f"build_info.annotations.{split}.url={address}/{split}.json" for split in splits]
        first = download("flickr30k", urls)
        asked = len(server.behaviour.requested)
        again = download("flickr30k", urls)
        assert len(server.behaviour.requested) == asked == 3
        wrong = download("coco_retrieval", urls)  # its md5 sums are known, and these files have others
    place = tmp_path / "flickr30k/annotations"
    assert first.files == again.files == [place / f"{split}.json" for split in splits]
    assert (place / "val.json").read_bytes() == CONTENT
    assert len(wrong.failures) == 3 and "aa31ac474cf6250ebb81d18348a07ed8" in wrong.failures[0]
    assert not (tmp_path / "coco/annotations/coco_karpathy_train.json").exists()
