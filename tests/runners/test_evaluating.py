"""Evaluating a run: its best checkpoint, results that say what made them, and nothing overwritten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import RunFile
from runs import final_checkpoint

from lavis_lite import load_model
from lavis_lite.cli import main
from lavis_lite.commands.launch import launch
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.results import state_dict_digest
from lavis_lite.common.run_folder import RunFolder


def evaluate(path: Path, *options: str) -> RunFolder:
    return launch(str(path), options, [], evaluate_only=True)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluate.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder but the console log and the locks."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in files
        if file.name != "run.log" and not file.name.startswith(".lock")
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shapes_folder) -> RunFile:
    """A run that is trained and tested; its run file starts from random weights."""
    run_file = RunFile(tmp_path_factory.mktemp("trained"), shapes_folder)
    launch(str(run_file.write(max_epoch=2, ema_decay=0.5)), [], [], evaluate_only=False)
    return run_file


@pytest.fixture
def output(trained, tmp_path) -> Path:
    """A copy of its folder, which has moved."""
    shutil.copytree(trained.output, tmp_path / "moved")
    return tmp_path / "moved"


def test_results_say_what_made_them(trained):
    best = torch.load(trained.output / "checkpoints" / "checkpoint_best.pth", weights_only=True)
    made_with = results(trained.output)["made_with"]
    assert made_with["step"] == best["step"]
    assert made_with["weights"] == state_dict_digest(best["model"])
    assert made_with["data"] == {"test": {"data_sets": ["shapes_caption"], "samples": 10}}
    assert made_with["settings"]["num_beams"] == 2
    assert (made_with["seed"], made_with["precision"]) == (42, "float32")
    assert made_with["version"]


@pytest.mark.parametrize("name", [".", "config.yaml"])
def test_a_run_folder_is_evaluated_by_its_best_checkpoint(output, name):
    before = contents(output)
    folder = evaluate(output / name)
    assert folder.path == output
    after = contents(output)
    for file in ("config.yaml", "evaluate.json", "result/test.json", "checkpoints/checkpoint_best.pth"):
        assert after[file] == before[file], file


def test_the_run_file_of_training_evaluates_what_was_trained(trained):
    """Its model section names no weights: it would test a model that was never trained."""
    before = results(trained.output)
    evaluate(trained.folder / "run.yaml")
    assert results(trained.output) == before


def test_other_settings_go_beside_the_results_of_the_run(output):
    before = contents(output)
    folder = evaluate(output, "run.num_beams=1")
    assert folder.path.parent == output
    assert folder.path.name.startswith("evaluate_")
    assert contents(output).items() >= before.items()
    made_with = results(folder.path)["made_with"]
    assert made_with["settings"]["num_beams"] == 1
    assert made_with["weights"] == results(output)["made_with"]["weights"]
    again = evaluate(output, "run.num_beams=1")
    assert again.path == folder.path


def test_the_folder_of_such_an_evaluation_can_be_evaluated_itself(output):
    beside = evaluate(output, "run.num_beams=1")
    config = yaml.safe_load(beside.config_file.read_text())
    assert config["run"]["evaluate"] is True
    assert config["model"]["finetuned"] == str(output / "checkpoints" / "checkpoint_best.pth")
    assert evaluate(beside.path).path == beside.path


@pytest.mark.parametrize("option", ["model.finetuned={}", "model.pretrained={}"])
def test_other_weights_are_tested_when_they_are_named(output, option, tmp_path):
    """The option loads them, too, although the run file says load_finetuned: false."""
    other = tmp_path / "other.pth"
    newest = final_checkpoint(output)
    torch.save({"model": newest["model"]}, other)
    folder = evaluate(output, option.format(other))
    made_with = results(folder.path)["made_with"]
    assert folder.path.parent == output
    assert (made_with["weights"], made_with["step"]) == (state_dict_digest(newest["model"]), None)


def test_a_run_that_is_not_validated_yet_is_tested_by_its_newest_weights(output):
    """Of a run that keeps an average of its weights, that is the average."""
    (output / "checkpoints" / "checkpoint_best.pth").unlink()
    (output / "evaluate.json").unlink()
    folder = evaluate(output)
    newest = final_checkpoint(output)
    made_with = results(folder.path)["made_with"]
    assert folder.path == output
    assert made_with["step"] == newest["state"]["step"]
    model = load_model("blip_caption", "tiny", checkpoint=output)
    for name, value in newest["average"].items():
        assert torch.equal(model.get_parameter(name), value), name
    assert made_with["weights"] == state_dict_digest(model.state_dict())


def test_a_run_without_a_checkpoint_is_not_evaluated(output):
    shutil.rmtree(output / "checkpoints")
    with pytest.raises(ConfigError, match="this run has saved no checkpoint yet"):
        evaluate(output)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"not a run folder, it has no config\.yaml"):
        evaluate(tmp_path)


def test_an_evaluation_does_not_overwrite_another_one(trained, tmp_path):
    """Into a folder of its own: the same again stays there, other data goes beside."""
    here = f"run.output_dir={tmp_path / 'results'}"
    first = evaluate(trained.output, here)
    before = (first.path / "evaluate.json").read_bytes()
    assert evaluate(trained.output, here).path == first.path
    other = evaluate(trained.output, here, "run.test_splits=[val]")
    assert other.path.parent == first.path
    assert list(results(other.path)) == ["val", "made_with"]
    assert (first.path / "evaluate.json").read_bytes() == before


def test_training_does_not_overwrite_an_evaluation(trained, tmp_path):
    folder = evaluate(trained.output, f"run.output_dir={tmp_path / 'results'}")
    with pytest.raises(ConfigError, match="holds results"):
        launch(str(trained.folder / "run.yaml"), [f"run.output_dir={folder.path}"], [], evaluate_only=False)


def test_a_damaged_evaluate_json_is_written_anew(output):
    (output / "evaluate.json").write_text('{"test": {"CIDEr"')
    assert evaluate(output).path == output
    assert "CIDEr" in results(output)["test"]


def test_the_command_line_evaluates_a_folder(output, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments=["evaluate", str(output)])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    made_with = results(output)["made_with"]
    assert "CIDEr" in printed
    assert f"weights {made_with['weights']}, step {made_with['step']}, seed 42" in printed


@pytest.mark.parametrize("words", [["evaluate"], ["evaluate", "run", "--cfg-path", "run.yaml"]])
def test_the_command_line_wants_one_thing_to_evaluate(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments=words)
    assert ended.value.code == 2
    assert "run" in capsys.readouterr().err
