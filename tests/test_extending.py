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


def test_a_model_and_a_builder_may_build_themselves_from_a_mapping_as_in_lavis(folder):
    path = folder / "my_parts.py"
    code = path.read_text(encoding="utf-8")
    for head, line in (("class MyModel", "width"), ("class MyNumbers", "count")):
        start = code.index("    @dataclass", code.index(head))
        method = (
            "    @classmethod\n"
            "    def from_config(cls, cfg=None):\n"
            f'        print("read by .get:", cfg.get("{line}"))\n'
            "        return super().from_config(cfg)\n\n"
        )
        code = code[:start] + method + code[start:]
    path.write_text(code, encoding="utf-8")
    result = run(train_command(folder / "my_run.yaml"), cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "read by .get: 3" in result.stdout  # the width of the model
    assert "read by .get: 8" in result.stdout  # the count of the builder
