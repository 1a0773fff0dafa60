"""Searching from the command line."""

from __future__ import annotations

import json
import subprocess
import sys

from PIL import Image


def search(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lavis_lite", "search", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_folder_is_searched_by_text_and_by_image(tmp_path):
    for number in range(3):
        Image.effect_noise((64, 64), 30 + 40 * number).convert("RGB").save(tmp_path / f"{number}.png")
    common = ["--index", str(tmp_path / "index"), "--type", "tiny"]
    image = tmp_path / "1.png"
    made = search("--like", str(image), "--images", str(tmp_path), "--json", "-k", "2", *common)
    hits = json.loads(made.stdout)
    assert hits[0]["path"] == str(image) and len(hits) == 2
    # The tiny model starts anew each time, with other weights: the index says so.
    again = search("a red circle", *common)
    assert again.returncode == 1 and "was made with other weights" in again.stderr


def test_nothing_to_look_for_is_said_in_one_sentence(tmp_path):
    said = search("--index", str(tmp_path))
    assert said.returncode == 1 and "say what to look for" in said.stderr
