"""`lavis-lite shards make` and `shards info`: what they leave out, refuse, and count."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image
from shards import jpeg, write_shards, write_tar

from lavis_lite.cli import main
from lavis_lite.commands.datasets import dataset_settings
from lavis_lite.commands.make_shards import WORK_FOLDER, make_shards
from lavis_lite.commands.shards import shard_info
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import LockedError, OwnerLock
from lavis_lite.datasets.web.shards import list_shards, raw_samples


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, kind in enumerate(("jpeg", "png", "webp")):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(folder / f"{number}", kind)
    return folder


def settings(photos: Path, captions: dict) -> dict:
    (photos.parent / "captions.json").write_text(json.dumps(captions))
    options = [f"images={photos}", f"annotations={photos.parent / 'captions.json'}"]
    return dataset_settings("caption_json", [*options, "val_fraction=0", "test_fraction=0"])


def make(photos: Path, captions: dict, left_out: list[str] | None = None) -> list[dict]:
    folder = photos.parent / "out"
    told = left_out.append if left_out is not None else None
    return make_shards("caption_json", settings(photos, captions), "train", folder, 2, told)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments=["shards", *words])
    return int(ended.value.code or 0)


# make


def test_an_image_without_a_suffix_gets_that_of_its_content(photos):
    make(photos, {"0": "a", "1": "b", "2": "c"})
    raws = [
        raw for shard in list_shards([str(photos.parent / "out")]) for raw in raw_samples(shard, pytest.fail)
    ]
    assert [next(suffix for suffix in ("jpg", "png", "webp") if suffix in raw) for raw in raws] == [
        "jpg",
        "png",
        "webp",
    ]


def test_what_is_left_out_is_named_counted_and_no_success(photos, capsys):
    (photos / "3.heic").write_bytes(b"not read here")
    (photos / "4.jpg").symlink_to("/dev/zero")
    captions = {"0": "a", "3.heic": "b", "4.jpg": "c", "5.jpg": "d"}
    settings(photos, captions)
    out = photos.parent / "out"
    options = [f"images={photos}", f"annotations={photos.parent / 'captions.json'}"]
    options += ["val_fraction=0", "test_fraction=0"]
    assert run("make", "caption_json", "-o", str(out), "--options", *options) == 1
    said = capsys.readouterr()
    assert "1 shards, 1 samples" in said.out and "3 images left out" in said.out
    left_out: list[str] = []
    (photos.parent / "out").rename(photos.parent / "earlier")
    make(photos, captions, left_out)
    assert "3.heic: is no image that is read here" in left_out[0]
    assert "4.jpg: is a device, not a file" in left_out[1] and "5.jpg: there is no such file" in left_out[2]


def test_no_sample_at_all_is_an_error_and_leaves_no_shard(photos):
    for name in ("8", "9"):
        (photos / name).write_text("no image")
    with pytest.raises(ConfigError, match=r"none of 2 annotations has a usable image; .*no image that"):
        make(photos, {"8": "a", "9": "b"})
    assert not list((photos.parent / "out").glob("*.tar")) and not (photos.parent / "out/index.json").exists()


@pytest.mark.parametrize("name", ["old.tar", "old.tar.gz", "index.json"])
def test_a_folder_with_shards_is_refused_and_not_touched(photos, name):
    old = photos.parent / "out" / name
    old.parent.mkdir()
    old.write_bytes(b"old")
    with pytest.raises(ConfigError, match=f"holds shards \\({name}\\)"):
        make(photos, {"0": "a"})
    assert [path.name for path in old.parent.iterdir()] == [name] and old.read_bytes() == b"old"


def test_what_a_killed_call_left_is_replaced(photos):
    left = photos.parent / "out" / WORK_FOLDER
    left.mkdir(parents=True)
    (left / "caption_json-train-000007.tar").write_bytes(b"half")
    make(photos, {"0": "a", "1": "b", "2": "c"})
    assert not left.exists() and len(list_shards([str(photos.parent / "out")])) == 2


def test_two_calls_at_once_do_not_mix(photos):
    out = photos.parent / "out"
    with OwnerLock(out / ".shards.lock", "another"), pytest.raises(LockedError, match="is in use by"):
        make(photos, {"0": "a"})


def test_other_fields_keep_what_they_say(photos):
    path = photos.parent / "captions.json"
    path.write_text('[{"image": "0", "caption": "a", "note": "half \\ud83d"}]')
    options = [f"images={photos}", f"annotations={path}", "val_fraction=0", "test_fraction=0"]
    out = photos.parent / "out"
    make_shards("caption_json", dataset_settings("caption_json", options), "train", out, 9)
    (raw,) = raw_samples(list_shards([str(out)])[0], pytest.fail)
    assert json.loads(raw["json"])["note"] == "half \ud83d"


# info


def test_whole_shards_are_a_success(tmp_path, capsys):
    write_shards(tmp_path / "s", [3, 2])
    assert run("info", str(tmp_path / "s")) == 0
    assert "2 shards, 5 samples, 0 damaged, 0 members not used" in capsys.readouterr().out


def test_unused_members_are_counted_by_reason_and_no_success(tmp_path, capsys):
    whole = {"key": "a", "jpg": jpeg(1), "txt": b"a", "cls": b"1", "npy": b"2"}
    write_tar(tmp_path / "a.tar", [whole, {"key": "b", "txt": b"b"}])
    assert run("info", str(tmp_path / "a.tar")) == 1
    said = capsys.readouterr().out
    assert "1 samples" in said and "1 jpg, 1 txt" in said and "0 damaged, 3 members not used" in said
    assert "(.cls is neither an image nor .txt or .json): a.cls" in said
    assert "(no image of the same name): b.txt" in said


def test_folders_in_an_archive_are_shown_and_no_failure(tmp_path, capsys):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("x")
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
    assert run("info", str(tmp_path / "a.tar")) == 0
    assert "1 member is not used (a folder): x" in capsys.readouterr().out


def test_a_wrong_count_in_an_index_is_shown_and_mended(tmp_path, capsys):
    folder = write_shards(tmp_path / "s", [3, 2])
    rows = [{"name": "shard-000.tar", "samples": 7}, {"name": "shard-001.tar", "samples": 2}]
    (folder / "index.json").write_text(json.dumps({"shards": rows}))
    assert run("info", str(folder)) == 1
    assert "damaged: holds 3 samples, its index says 7" in capsys.readouterr().out
    assert run("info", "--write", f"{folder}/shard-000.tar") == 0
    assert [shard.samples for shard in list_shards([str(folder)])] == [3, 2]
    assert run("info", str(folder)) == 0


def test_what_is_no_tar_is_a_damaged_shard(tmp_path):
    (tmp_path / "a.tar").write_text("<html>")
    (report,) = shard_info([str(tmp_path)])
    assert report.samples == 0 and "is a web page" in report.errors[0]
