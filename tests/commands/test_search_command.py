"""Searching from the command line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from processes import REPOSITORY, run

from lavis_lite import load_model

MATCHER = "blip_image_text_matching"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("weights")
    for seed, name in enumerate(("matcher", "other")):
        torch.manual_seed(seed)
        torch.save({"model": load_model(MATCHER, "tiny").state_dict()}, folder / f"{name}.pth")
    return {name: str(folder / f"{name}.pth") for name in ("matcher", "other")}


@pytest.fixture
def index(command, photos, weights, tmp_path) -> Path:
    """An index of three photographs, made with relative paths."""
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        words = ["--images", "photos", "--index", "p.idx", "--checkpoint", weights["matcher"]]
        code, out, error = command("search", *words, "--type", "tiny", "--num-workers", "0")
    finally:
        os.chdir(here)
    assert (code, out) == (0, "3 images can be searched\n"), error
    return tmp_path / "p.idx"


def found(out: str) -> list[str]:
    return [Path(hit["path"]).name for hit in json.loads(out)]


def test_an_index_remembers_its_model_and_is_searched_from_any_folder(
    command, index, photos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path / "photos")
    code, out, error = command("search", "a red circle", "--index", str(index), "--json", "-k", "99")
    assert code == 0 and sorted(found(out)) == ["0.jpg", "1.jpg", "2.jpg"], error
    assert all(Path(hit["path"]).parent == photos for hit in json.loads(out))
    code, out, _ = command(
        "search", "--like", str(photos / "1.jpg"), "--index", str(index), "--json", "-k", "1"
    )
    assert code == 0 and found(out) == ["1.jpg"]


def test_another_model_is_refused_in_words(command, index, weights):
    words = ["search", "a dog", "--index", str(index)]
    for more in (["--checkpoint", weights["other"]], ["--type", "tiny", "--name", "blip_retrieval"]):
        code, _, error = command(*words, *more)
        assert code == 1 and "was made with other weights" in error
        assert MATCHER in error and "Traceback" not in error


def test_weights_that_have_gone_are_asked_for(command, index, weights, tmp_path):
    place = Path(weights["matcher"])
    place.rename(tmp_path / "moved.pth")
    try:
        code, _, error = command("search", "a dog", "--index", str(index))
        assert code == 1 and str(place) in error and "Say with --checkpoint where they are now" in error
        code, _, _ = command(
            "search", "a dog", "--index", str(index), "--checkpoint", str(tmp_path / "moved.pth")
        )
        assert code == 0
    finally:
        (tmp_path / "moved.pth").rename(place)


def test_the_same_folder_by_other_paths_is_not_doubled(command, index, photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    code, out, _ = command("search", "--images", str(photos), str(tmp_path / "link"), "--index", str(index))
    assert (code, out) == (0, "3 images can be searched\n")


def test_files_that_are_gone_are_left_out_and_taken_out_at_the_next_addition(command, index, photos):
    (photos / "0.jpg").unlink()
    code, out, error = command("search", "a dog", "--index", str(index), "--json", "--rerank", "0")
    assert code == 0 and sorted(found(out)) == ["1.jpg", "2.jpg"]
    assert "0.jpg is not there any more" in error
    code, out, error = command("search", "--images", str(photos), "--index", str(index))
    assert (code, out) == (0, "2 images can be searched\n")
    assert "1 images are gone and were taken out" in error


def test_an_index_that_is_not_there_is_named_with_its_neighbors_and_not_created(command, index, tmp_path):
    code, _, error = command("search", "a dog", "--index", str(tmp_path / "q.idx"))
    assert code == 1 and f"Did you mean {index}?" in error
    assert not (tmp_path / "q.idx").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "{photos}/none"], "none"),
        (["--images", "{photos}", "--name", "blip_caption"], "cannot match images and texts"),
        (["--images", "{photos}", "--like", "{photos}/none.jpg"], "there is no such file"),
        (["--images", "{photos}", "--device", "gpu"], "unknown device 'gpu'"),
        (["--images", "{photos}", "--checkpoint", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_no_index_is_begun_that_cannot_be(command, photos, tmp_path, words, message):
    words = [word.format(photos=photos) for word in words]
    code, _, error = command("search", *words, "--type", "tiny", "--index", str(tmp_path / "new"))
    assert code == 1 and message in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_photographs_are_not_an_index(command, photos, weights):
    before = sorted(photos.iterdir())
    words = [
        "--images",
        str(photos),
        "--index",
        str(photos),
        "--type",
        "tiny",
        "--checkpoint",
        weights["matcher"],
    ]
    code, _, error = command("search", *words)
    assert code == 1 and "is not an index, and not empty" in error
    assert sorted(photos.iterdir()) == before


def test_damage_is_named_and_repaired_by_the_next_addition(command, index, photos):
    rows = index / "embeddings.f32"
    content = bytearray(rows.read_bytes())
    content[0] ^= 1
    rows.write_bytes(content)
    code, out, error = command("search", "a dog", "--index", str(index), "--json")
    assert code == 0 and len(found(out)) == 2
    assert "row 0, of" in error and "Add the images again to repair the index" in error
    assert rows.read_bytes() == content
    command("search", "--images", str(photos), "--index", str(index))
    code, out, error = command("search", "a dog", "--index", str(index), "--json")
    assert code == 0 and len(found(out)) == 3 and "damaged" not in error


def test_the_command_works_as_a_process(tmp_path):
    Image.effect_noise((64, 64), 30).convert("RGB").save(tmp_path / "0.png")
    words = [sys.executable, "-m", "lavis_lite", "search", "--images", str(tmp_path / "0.png")]
    words += [
        "--index",
        str(tmp_path / "index"),
        "--type",
        "tiny",
        "--like",
        str(tmp_path / "0.png"),
        "--json",
    ]
    said = run(words, REPOSITORY)
    assert found(said.stdout) == ["0.png"], said.stderr


def test_nothing_to_look_for_is_said_in_one_sentence(command, tmp_path):
    code, _, error = command("search", "--index", str(tmp_path))
    assert code == 1 and "say what to look for" in error
