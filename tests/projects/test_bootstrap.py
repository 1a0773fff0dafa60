"""The loop: stages run once, each from the ones before it, and end in a table."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time

import pytest
import yaml
from bootstrap import Children
from conftest import REPOSITORY
from processes import run

LOOP = [sys.executable, str(REPOSITORY / "projects" / "blip" / "capfilt" / "bootstrap.py")]


@pytest.fixture
def loop(run_file, tmp_path):
    recipe = run_file.write(max_epoch=1, report=False)
    content = {
        "output_dir": str(tmp_path / "loop"),
        "seeds": [1],
        "stages": {
            "first": {"recipe": str(recipe), "options": {"run.valid_splits": []}},
            "second": {
                "recipe": str(recipe),
                "options": {"model.load_pretrained": True, "model.pretrained": "{first}"},
            },
        },
        "table": {
            "baseline": "short",
            "arms": {"short": {"caption": "first"}, "long": {"caption": "second"}},
            "metrics": {"caption": ["CIDEr"]},
        },
    }
    path = tmp_path / "loop.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path, content


def test_stages_run_once_and_start_from_the_ones_before(loop, tmp_path):
    path, content = loop
    said = run([*LOOP, str(path)])
    assert said.returncode == 0, said.stderr[-3000:]
    folder = tmp_path / "loop" / "seed_1"
    second = yaml.safe_load((folder / "second" / "config.yaml").read_text())
    assert second["model"]["pretrained"] == str(folder / "first")
    assert second["run"]["seed"] == 1
    first, later = (
        json.loads((folder / name / "evaluate.json").read_text())["test"]["CIDEr"]
        for name in ("first", "second")
    )
    rows = said.stdout.splitlines()
    assert rows[2] == f"| short | 1 | {first:.3f} |" and rows[3] == f"| long | 1 | {later:.3f} |"
    assert rows[4] == f"| long against short | | {later - first:+.3f} |"

    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.pth")}
    again = run([*LOOP, str(path)])
    assert again.stdout == said.stdout
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.pth")} == before

    content["stages"]["second"]["options"]["run.max_epoch"] = 2
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    refused = run([*LOOP, str(path)])
    assert refused.returncode != 0 and "was done with other settings" in refused.stderr


def test_seeds_that_run_side_by_side_come_to_the_same(loop, tmp_path):
    path, _ = loop
    words = [*LOOP, str(path), "--seeds", "1", "2"]
    apart = run(words)
    together = run([*words, "--jobs", "2", "--output-dir", str(tmp_path / "together")])
    assert apart.returncode == together.returncode == 0, together.stderr[-3000:]
    assert together.stdout.splitlines()[:5] == apart.stdout.splitlines()[:5]
    assert "| short | 2 | " in together.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["stages"]["first"].update(recipe="nowhere.yaml"), "nowhere.yaml: no such file"),
        (lambda c: c["stages"]["first"]["options"].update(a="{second}"), "names no stage before this one"),
        (lambda c: c["table"]["arms"]["long"].update(caption="third"), "there is no stage 'third'"),
        (lambda c: c["table"].update(baseline="none"), "there is no arm 'none'"),
        (lambda c: c.update(sedes=[1]), "did you mean seeds"),
    ],
)
def test_a_loop_that_cannot_run_is_refused_before_it_starts(loop, change, message):
    path, content = loop
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    said = run([*LOOP, str(path)])
    assert said.returncode != 0
    assert message in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{folder}/nowhere"], 1, "no such config file"),
        (["{folder}/torn.yaml"], 1, "is not valid yaml"),
        (["x", "--seeds", "-1"], 2, "--seeds: expected a whole number of at least 0"),
        (["x", "--jobs", "0"], 2, "--jobs: expected a whole number of at least 1"),
    ],
)
def test_a_command_line_that_cannot_be_done_says_why_in_one_line(words, code, message, tmp_path):
    (tmp_path / "torn.yaml").write_text("run: [1")
    said = run([*LOOP, *(word.format(folder=tmp_path) for word in words)])
    assert said.returncode == code and message in said.stderr
    assert len(said.stderr.strip().splitlines()) == 1, said.stderr


def test_a_stop_is_handed_on_to_the_stages_and_none_starts_after_it():
    children = Children()
    codes = []
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    thread = threading.Thread(target=lambda: codes.append(children.run(sleep, {})))
    thread.start()
    while not children.running:
        time.sleep(0.01)
    children.stop()
    thread.join(timeout=30)
    assert codes == [-signal.SIGTERM]
    assert children.run(sleep, {}) == 128 + signal.SIGTERM
