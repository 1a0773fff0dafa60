"""The user's own modules: files, folders and dotted names, each imported once."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, SHAPES

from lavis_lite.common.config.layering import load_config
from lavis_lite.common.config.saved import write_saved_config
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.config.user_modules import import_modules, is_imported


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    """A package folder whose modules import each other."""
    before = set(sys.modules)
    folder = tmp_path / "home" / "my.plug-in"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("from .parts import Part\nfrom . import parts\n")
    (folder / "parts.py").write_text("class Part:\n    size = 3\n")
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


def modules_of(folder: Path) -> list[str]:
    return [n for n, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(folder))]


def test_a_folder_is_imported_as_a_package_once_however_it_is_named(plugin, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(plugin)
    monkeypatch.chdir(plugin.parent)
    names = ["./my.plug-in", str(plugin), f"{plugin}/", "my.plug-in/__init__.py", str(tmp_path / "link")]
    assert import_modules(names) == [str(plugin)] * len(names)
    assert is_imported(str(plugin))
    package, parts = sorted(modules_of(plugin))
    assert parts == f"{package}.parts" and "." not in package
    assert sys.modules[package].Part.size == 3


def test_a_path_is_looked_for_beside_the_run_file_from_any_working_directory(plugin, tmp_path, monkeypatch):
    (tmp_path / "home" / "recipes").mkdir()
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "my.plug-in").mkdir()
    (tmp_path / "elsewhere" / "my.plug-in" / "__init__.py").write_text("raise RuntimeError\n")
    monkeypatch.chdir(tmp_path / "elsewhere" / "deep")
    assert import_modules(["../my.plug-in"], relative_to=tmp_path / "home" / "recipes") == [str(plugin)]


def test_its_classes_have_the_same_name_in_every_process(plugin):
    import_modules([str(plugin)])
    part = sys.modules[min(modules_of(plugin))].Part
    code = (
        "import pickle, sys; from lavis_lite.common.config.user_modules import import_modules; "
        f"import_modules([{str(plugin)!r}]); print(pickle.loads(sys.stdin.buffer.read()).size)"
    )
    said = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(part), capture_output=True)
    assert said.stdout.strip() == b"3", said.stderr.decode()


def test_a_package_that_fails_is_imported_again_as_a_whole(plugin):
    (plugin / "__init__.py").write_text("from . import parts\nfrom .absent import nothing\n")
    with pytest.raises(ModuleNotFoundError, match="absent"):
        import_modules([str(plugin)])
    assert not modules_of(plugin)
    (plugin / "absent.py").write_text("nothing = 0\n")
    import_modules([str(plugin)])


@pytest.mark.parametrize("name", ["./nowhere", "./empty", "nowhere/", "/nowhere/at/all"])
def test_a_folder_without_a_package_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=f"no folder with an __init__.py '{name}'"):
        import_modules([name])


def test_a_folder_inside_the_run_folder_is_saved_relative_to_it(tmp_path):
    inside = tmp_path / "run" / "plugin"
    inside.mkdir(parents=True)
    write_saved_config({"imports": [str(inside)]}, tmp_path / "run" / "config.yaml")
    assert "./plugin" in (tmp_path / "run" / "config.yaml").read_text()


def test_a_recipe_finds_its_plug_in_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(REPOSITORY / "projects/blip/train/caption_shapes.yaml")
    assert config.sections["imports"] == [SHAPES]
