"""The code in docs/extending.md, run from outside the package as a person would."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from processes import REPOSITORY, run, train_command

DOCUMENT = REPOSITORY / "docs" / "extending.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the document, as it names them."""
    for code in re.findall(
        r"```(?:python|yaml)\n# (\S+)\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S
    ):
        (tmp_path / code[0]).write_text(code[1], encoding="utf-8")
    return tmp_path


def test_own_model_data_processor_and_task_train_without_a_fork(folder):
    result = run(train_command(folder / "my_run.yaml"), cwd=folder)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (folder / "my_output" / "log.jsonl").read_text().splitlines()]
    assert sum(line["kind"] == "train" for line in lines) == 1  # log_freq is 50; the last step is logged
    assert lines[0]["step"] == 2
    assert "closeness" in json.loads((folder / "my_output" / "evaluate.json").read_text())["test"]
    saved = yaml.safe_load((folder / "my_output" / "config.yaml").read_text())
    assert saved["imports"] == [str(folder / "my_parts.py")]


def test_the_command_line_imports_too_and_saves_what_it_imported(folder):
    path = folder / "my_run.yaml"
    path.write_text(path.read_text().replace("imports: [my_parts.py]\n", ""), encoding="utf-8")
    without = run(train_command(path), cwd=folder)
    assert without.returncode == 1
    assert "No model is called 'my_model'" in without.stderr
    assert "Traceback" not in without.stderr
    result = run([*train_command(path), "--import", "my_parts.py"], cwd=folder)
    assert result.returncode == 0, result.stderr
    saved = yaml.safe_load((folder / "my_output" / "config.yaml").read_text())
    assert saved["imports"] == [str(folder / "my_parts.py")]


def test_a_missing_import_is_one_message(folder):
    result = run([*train_command(folder / "my_run.yaml"), "--import", "nowhere.py"], cwd=folder)
    assert result.returncode == 1
    assert "no file 'nowhere.py'" in result.stderr
    assert "Traceback" not in result.stderr
