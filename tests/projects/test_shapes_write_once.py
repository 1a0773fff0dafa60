"""A drawn data set is whole or not there, whoever asks and whoever is killed."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PROJECTS

from shapes.write_caption import CaptionSettings
from shapes.write_classification import ClassificationSettings
from shapes.write_nlvr import NLVRSettings
from shapes.write_once import ShapesError
from shapes.write_video import VideoSettings
from shapes.write_vqa import VQASettings
from shapes.write_web import WebSettings

SMALL = WebSettings(seed=3, samples=12, samples_per_shard=5, drawn_size=32)
WRITE = (
    f"import sys; sys.path.insert(0, {PROJECTS!r}); from shapes.write_web import WebSettings; "
    "WebSettings(3, int(sys.argv[2]), samples_per_shard=5, drawn_size=32).draw(sys.argv[1])"
)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_killed_writing_is_never_seen_and_is_begun_anew(tmp_path: Path) -> None:
    folder, aside = tmp_path / "data", tmp_path / ".data.tmp"
    process = subprocess.Popen([sys.executable, "-c", WRITE, str(folder), "100000"])
    deadline = time.monotonic() + 60
    while not list(aside.glob("*.tar")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert list(aside.glob("*.tar"))
    assert not folder.exists()
    assert hashes(SMALL.draw(folder)) == hashes(SMALL.draw(tmp_path / "undisturbed"))
    assert not aside.exists()


def test_processes_that_ask_at_once_share_one_writing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE, str(tmp_path / "data"), "12"]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert hashes(tmp_path / "data") == hashes(SMALL.draw(tmp_path / "alone"))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(ShapesError, match=r"is not a drawn data set \(it has no shapes.json\)"):
        SMALL.draw(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_data_set_of_ours_is_refused_by_name(tmp_path: Path) -> None:
    folder = SMALL.draw(tmp_path / "data")
    marker = folder / "shapes.json"
    marker.write_text(marker.read_text().replace("shapes_web", "shapes_vqa"))
    with pytest.raises(ShapesError, match="data_set is 'shapes_vqa' there, 'shapes_web' was asked for"):
        SMALL.draw(folder)


def test_a_broken_marker_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = SMALL.draw(tmp_path / "data")
    (folder / "shapes.json").write_text("{")
    with pytest.raises(ShapesError, match=r"shapes.json: is not JSON .* remove the folder"):
        SMALL.draw(folder)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert (SMALL.draw(tmp_path / "data") / "index.json").is_file()


COUNTS = {"train_images": 12, "val_images": 3, "test_images": 4}
DRAWN = {
    "caption": CaptionSettings(**COUNTS, drawn_size=32),
    "vqa": VQASettings(**COUNTS, drawn_size=32, hard=True),
    "nlvr": NLVRSettings(train_pairs=20, val_pairs=4, test_pairs=6, drawn_size=32),
    "classification": ClassificationSettings(**COUNTS, drawn_size=32),
    "video": VideoSettings(train_videos=4, val_videos=2, test_videos=2, drawn_size=32),
    "web": WebSettings(samples=20, samples_per_shard=8, drawn_size=32),
}
# Of all texts; the bytes of images depend on the JPEG library. Whoever changes the worlds on purpose
# counts up WORLD_VERSION or the version of the settings, and changes the digest.
DIGESTS = {
    "caption": "8b2c55dc8a16bae6",
    "vqa": "2a44ecf5c7f81f10",
    "nlvr": "0c3fa58b454cf34d",
    "classification": "a6b653e78178d23d",
    "video": "3802b729d206b663",
    "web": "7158c1d5894ff601",
}


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_written_stays_the_same_from_version_to_version(name: str, tmp_path: Path) -> None:
    folder = DRAWN[name].draw(tmp_path / "data")
    digest = hashlib.sha256()
    for path in sorted(path for pattern in ("*.json", "*.jsonl") for path in folder.rglob(pattern)):
        if path.name != "index.json":  # holds the sizes of images
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    assert digest.hexdigest()[:16] == DIGESTS[name]
