"""config.yaml of a run is data: written whole, read back plain, bounded, recovered where it is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lavis_lite.common.config.layering import load_config
from lavis_lite.common.config.saved import read_saved_config, write_saved_config
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.run_folder import RunFolder

SECTIONS: dict[str, Any] = {
    "imports": [],
    "model": {"arch": "blip_caption", "model_type": "tiny", "prompt": "a picture of "},
    "datasets": {"shapes_caption": {}},
    "preprocess": {},
    "run": {"task": "captioning", "init_lr": 1e-05, "seed": 3},
}


def write(folder: Path, text: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return folder / "config.yaml"


def test_what_is_written_is_read_back(tmp_path):
    shared = {"size": 3}
    sections = {**SECTIONS, "preprocess": {"train": shared, "eval": shared}}
    write_saved_config(sections, tmp_path / "config.yaml")
    assert read_saved_config(tmp_path / "config.yaml") == sections
    assert "&" not in (tmp_path / "config.yaml").read_text()  # no aliases, for people to read


def test_numbers_are_read_as_in_a_run_file(tmp_path):
    text = yaml.safe_dump(SECTIONS).replace("1.0e-05", "1e-5")
    assert "init_lr: 1e-5" in text
    assert read_saved_config(write(tmp_path, text))["run"]["init_lr"] == 1e-5


def test_files_inside_the_run_folder_are_named_relative_to_it(tmp_path):
    inside, outside = tmp_path / "run" / "parts.py", tmp_path / "parts.py"
    write_saved_config(
        {**SECTIONS, "imports": [str(inside), str(outside), "a.b"]}, tmp_path / "run" / "config.yaml"
    )
    assert read_saved_config(tmp_path / "run" / "config.yaml")["imports"] == ["parts.py", str(outside), "a.b"]


def test_the_environment_of_the_reader_does_not_get_into_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    model = {"arch": "blip_caption", "model_type": "tiny", "prompt": "${oc.env:SECRET} "}
    path = write(tmp_path, yaml.safe_dump({**SECTIONS, "model": model}))
    assert RunFolder(tmp_path).config()["model"]["prompt"] == "${oc.env:SECRET} "
    with pytest.raises(
        ConfigError, match=r"model\.prompt is .*\$\{oc\.env:SECRET\}.* not resolved"
    ) as caught:
        load_config(path)
    assert "hunter2" not in str(caught.value)


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{new}: &{new} {{<<: [{','.join([f'*{old}'] * 9)}]}}\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'model' is missing"),
        ("[1, 2]", "'model' is missing"),
        ("model: [", "not valid yaml"),
        ("\x00\x00\x00", "not valid yaml"),
        ("[" * 30_000, "nested too deeply"),
        (yaml.safe_dump(SECTIONS) + LAUGHS, "more values than any config"),
        (yaml.safe_dump(SECTIONS) + MERGES, "merge keys"),
        (yaml.safe_dump(SECTIONS) + "x: &x [*x]\n", "more values than any config|not valid yaml"),
        (yaml.safe_dump(SECTIONS) + "x: !!python/object/apply:os.system [touch evil]\n", "not valid yaml"),
        (yaml.safe_dump(SECTIONS) + "#" * (1 << 20), "larger than"),
        (yaml.safe_dump(SECTIONS).replace("arch: blip_caption", "arch: 5"), r"model\.arch is missing"),
    ],
    ids=["empty", "list", "broken", "zeros", "deep", "aliases", "merges", "loop", "code", "large", "arch"],
)
def test_a_damaged_or_hostile_config_is_one_error(tmp_path, text, reason):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=reason) as caught:
        read_saved_config(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "model: [", None])
def test_a_damaged_config_is_taken_from_a_checkpoint(tmp_path, text, caplog):
    path = write(tmp_path, text or "")
    if text is None:
        path.unlink()
    torch.save({"model": {}, "config": SECTIONS}, tmp_path / "checkpoints" / "checkpoint_00000005.pth")
    assert RunFolder(tmp_path).config() == SECTIONS
    assert "A copy of it in" in caplog.text
    assert RunFolder(tmp_path).config() == SECTIONS


def test_a_damaged_config_that_nothing_replaces_is_named(tmp_path):
    write(tmp_path, "")
    with pytest.raises(ConfigError, match="the file is damaged"):
        RunFolder(tmp_path).config()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"test": 3}', "[" * 99999])
def test_damaged_metrics_count_as_none(tmp_path, text, caplog):
    (tmp_path / "evaluate.json").write_text(text)
    assert RunFolder(tmp_path).test_results() is None
    assert "counts as not tested" in caplog.text


def test_metrics_are_read(tmp_path):
    assert RunFolder(tmp_path).test_results() is None
    (tmp_path / "evaluate.json").write_text('{"test": {"CIDEr": 0.5}}')
    assert RunFolder(tmp_path).test_results() == ({"test": {"CIDEr": 0.5}}, {})
