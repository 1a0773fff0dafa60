"""What a type checker knows of a user's file: the package is typed, and no type gets lost on the way."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from processes import REPOSITORY, run

USER_FILE = """
from dataclasses import dataclass
from typing import Any

import torch

from lavis_lite import load_model, load_model_and_preprocess, registry
from lavis_lite.datasets.base_dataset import BaseDataset
from lavis_lite.datasets.builders import BaseDatasetBuilder
from lavis_lite.models import BaseModel


@registry.register_builder("my_numbers")
class MyNumbers(BaseDatasetBuilder):
    @dataclass
    class Config(BaseDatasetBuilder.Config):
        count: int = 8

    config: Config

    def splits(self) -> list[str]:
        return ["train"]

    def build(self, split: str) -> BaseDataset:
        images, texts = self.processors(split == "train")
        numbers = [{"number": number} for number in range(self.config.count)]
        return BaseDataset(numbers, self.image_root(), images, texts)


@registry.register_model("my_model")
class MyModel(BaseModel):
    @dataclass
    class Config(BaseModel.Config):
        width: int = 4

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.layer = torch.nn.Linear(1, config.width)

    def answer(self) -> int:
        return 42


model = load_model("blip_caption", "tiny", is_eval=True)
captions: list[str] = model.generate({"image": torch.zeros(1, 3, 64, 64)}, num_beams=3)
other, images, texts = load_model_and_preprocess("blip_vqa", "tiny")

reveal_type(model)
reveal_type(other)
reveal_type(load_model("my_model", None))
reveal_type(registry.get_model_class("my_model"))
reveal_type(registry.get_builder_class("my_numbers"))
reveal_type(registry.get_task_class("captioning"))
reveal_type(registry.get_processor_class("blip_caption").from_config())
reveal_type(registry.list_models())
reveal_type(MyModel.from_pretrained("tiny"))
"""
TYPES = [
    "lavis_lite.models.blip_models.blip_caption.BlipCaption",
    "lavis_lite.models.blip_models.blip_vqa.BlipVQA",
    "lavis_lite.models.base_model.BaseModel",
    "type[lavis_lite.models.base_model.BaseModel]",
    "type[lavis_lite.datasets.builders.base_builder.BaseDatasetBuilder]",
    "type[lavis_lite.tasks.base_task.BaseTask]",
    "lavis_lite.processors.base_processor.BaseProcessor",
    "list[str]",
    "user_file.MyModel",
]
MISTAKES = """
from lavis_lite import load_model, registry

load_model("blip_caption", 7)
load_model("blip_caption", "tiny").generat({})


@registry.register_model("not_a_model")
class NotAModel: ...
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy_cache")


def mypy(file: Path, cache: Path) -> str:
    config = file.with_name("mypy.ini")
    # No setting of ours: a user's mypy finds the package's types by its py.typed.
    config.write_text("[mypy]\nfollow_imports = silent\nignore_missing_imports = true\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", cache, file.name]
    ended = run([str(word) for word in command], cwd=file.parent, MYPYPATH=str(REPOSITORY))
    return ended.stdout + ended.stderr


def test_a_users_file_is_checked_and_its_types_are_known(tmp_path, cache):
    file = tmp_path / "user_file.py"
    file.write_text(USER_FILE, encoding="utf-8")
    output = mypy(file, cache)
    assert "error" not in output, output
    assert re.findall(r'Revealed type is "(.*)"', output) == TYPES, output


def test_mistakes_of_a_user_are_errors(tmp_path, cache):
    file = tmp_path / "mistakes.py"
    file.write_text(MISTAKES, encoding="utf-8")
    output = mypy(file, cache)
    lines = {int(number) for number in re.findall(r"mistakes\.py:(\d+): error", output)}
    assert lines == {4, 5, 9}, output


def test_the_package_ships_its_types():
    assert (REPOSITORY / "lavis_lite" / "py.typed").is_file()
