"""What a person sees who mistypes a command: one line that says what is wrong, never a traceback."""

from __future__ import annotations

import sys

import pytest
from processes import run

RECIPE = "projects/blip/train/caption_shapes.yaml"
COMMAND = [sys.executable, "-m", "lavis_lite"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "{nowhere}"], "there is no such run folder"),
        (["metrics", "{nowhere}"], "there is no such run folder"),
        (["metrics", "{folder}"], "is not a run folder"),
        (["report", "{folder}"], "is not a run folder"),
        (["capfilt", "status", "{folder}"], "it is no output folder of capfilt"),
        (["capfilt", "report", "{folder}"], "it is no output folder of capfilt"),
        (["capfilt", "judge", "{folder}", "--truth", "{folder}"], "it is no output folder of capfilt"),
        (["capfilt", "refilter", "{folder}", "-o", "{folder}/kept.json"], "it is no output folder"),
        (["bootstrap", "{nowhere}"], "no such config file"),
        (["bootstrap", "{torn}"], "is not valid yaml"),
        (["train", "--cfg-path", "{torn}"], "is not valid yaml"),
        (["download", "coco_caption", "--options", "imagse=x"], "did you mean images"),
        (
            ["capfilt", "run", "{folder}", "-o", "{folder}/o", "--options", "scorers={{a:{{}}}}"],
            "not valid yaml",
        ),
        (
            ["train", "--cfg-path", RECIPE, "--options", "run.device=gpu"],
            "device: unknown device 'gpu'; choose auto, cpu, cuda or mps",
        ),
    ],
)
def test_a_command_that_cannot_be_done_says_why_in_one_line(words, message, tmp_path):
    torn = tmp_path / "torn.yaml"
    torn.write_text("run: [1")
    (tmp_path / "folder").mkdir()
    places = {"nowhere": tmp_path / "nowhere", "folder": tmp_path / "folder", "torn": torn}
    said = run([*COMMAND, *(word.format(**places) for word in words)])
    assert said.returncode == 1
    assert message in said.stderr
    assert len(said.stderr.strip().splitlines()) == 1, said.stderr
