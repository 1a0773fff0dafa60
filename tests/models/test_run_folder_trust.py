"""A run folder from elsewhere is data: what its config imports is run only where the caller says so."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY_SIZES
from PIL import Image

from lavis_lite import load_model, load_model_and_preprocess
from lavis_lite.capfilt.scorers import load_model as load_capfilt_model
from lavis_lite.commands.caption import load_captioner
from lavis_lite.commands.convert import convert
from lavis_lite.commands.search import open_index
from lavis_lite.common.checkpoint.store import CheckpointError
from lavis_lite.common.config.layering import load_config
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.config.user_modules import import_modules
from lavis_lite.common.registry import registry

CODE = """
from pathlib import Path
from lavis_lite.common.registry import registry
from lavis_lite.processors import BaseProcessor

with Path({marker!r}).open("a") as file:
    file.write("code ran\\n")

@registry.register_processor("trust_test_text")
class TrustTestText(BaseProcessor):
    pass
"""
OWN_MODEL = """
import torch
from lavis_lite.common.registry import registry
from lavis_lite.models import BaseModel

@registry.register_model("trust_test_model")
class TrustTestModel(BaseModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = torch.nn.Linear(1, 2)
"""


IMAGES = {"eval": {"name": "blip_image_eval", "image_size": 32}}


class Stranger:
    """A run folder whose config names code, and the file that the code would write."""

    def __init__(self, home: Path) -> None:
        self.folder, self.marker = home / "stranger", home / "code_ran"
        (self.folder / "checkpoints").mkdir(parents=True)
        self.module = self.folder / "parts.py"
        self.module.write_text(CODE.format(marker=str(self.marker)))
        self.model = {"arch": "blip_caption", "model_type": "tiny", **TINY_SIZES, "tokenizer": "shapes"}
        self.text_processor = "trust_test_text"
        self.write(["parts.py"])
        Image.new("RGB", (32, 32)).save(self.folder / "a.jpg")
        model = load_model("blip_caption", "tiny", **TINY_SIZES)
        torch.save({"model": model.state_dict()}, self.folder / "checkpoints" / "checkpoint_best.pth")

    def write(self, imports: object, **model: object) -> None:
        processors = {"eval": {"name": self.text_processor}}
        sections = {"imports": imports, "model": {**self.model, **model}, "datasets": {}, "run": {}}
        sections["preprocess"] = {"text_processor": processors, "vis_processor": IMAGES}
        (self.folder / "config.yaml").write_text(yaml.safe_dump(sections))

    def write_own_model(self) -> None:
        self.module.write_text(self.module.read_text() + OWN_MODEL)
        self.model, self.text_processor = {"arch": "trust_test_model"}, "blip_caption"
        self.write(["parts.py"])
        weights = torch.nn.ModuleDict({"model": torch.nn.Linear(1, 2)}).state_dict()
        torch.save({"model": weights}, self.folder / "checkpoints" / "checkpoint_best.pth")

    @property
    def runs(self) -> int:
        return len(self.marker.read_text().splitlines()) if self.marker.exists() else 0


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Stranger]:
    before = set(sys.modules)
    yield Stranger(tmp_path)
    registry.models.unregister("trust_test_model")
    registry.processors.unregister("trust_test_text")
    for name in [name for name in sys.modules if name not in before and "parts" in name]:
        del sys.modules[name]


def load_evaluation_config(folder: Path) -> None:
    load_config(folder / "config.yaml")


def photo(folder: Path) -> str:
    Image.new("RGB", (40, 30)).save(folder.parent / "photo.jpg")
    return str(folder.parent / "photo.jpg")


OPENERS = {
    "load_model": lambda folder: load_model("blip_caption", "tiny", checkpoint=folder),
    "load_model_and_preprocess": lambda folder: load_model_and_preprocess(
        "blip_caption", "tiny", checkpoint=folder
    ),
    "caption": lambda folder: load_captioner(str(folder), "blip_caption", "tiny", "cpu"),
    "search": lambda folder: open_index(folder.parent / "index", [photo(folder)], checkpoint=str(folder)),
    "convert": lambda folder: convert(folder, "salesforce", folder.parent / "out.pth"),
    "capfilt": lambda folder: load_capfilt_model("blip_caption", "tiny", str(folder), torch.device("cpu")),
    "evaluate": load_evaluation_config,
}


@pytest.mark.parametrize("opener", OPENERS)
def test_nothing_that_opens_a_run_folder_runs_its_code(stranger, opener):
    with pytest.raises(ConfigError) as caught:
        OPENERS[opener](stranger.folder)
    said = str(caught.value)
    assert str(stranger.folder) in said and str(stranger.module) in said
    assert "trust_imports=True" in said and "--trust-imports" in said and "--import" in said
    assert "\n" not in said
    assert stranger.runs == 0


@pytest.mark.parametrize("opener", sorted(OPENERS.keys() - {"evaluate", "search"}))
def test_a_run_that_needs_none_of_its_code_is_opened_without_asking_or_running_it(stranger, opener):
    stranger.text_processor = "blip_caption"
    stranger.write(["parts.py", "./package", "gone.py"])
    OPENERS[opener](stranger.folder)
    assert stranger.runs == 0


@pytest.mark.parametrize(
    "name",
    [
        "./package",
        "package/__init__.py",
        "{folder}/package",
        "linked_package/",
        "parts.py",
        "./parts.py",
        "../stranger/parts.py",
        "{folder}/parts.py",
        "{folder}/../stranger/parts.py",
        "link.py",
        "a_module_of_the_stranger",
        "antigravity",
        "${{oc.env:PWD}}/parts.py",
        "gone.py",
    ],
)
def test_however_the_code_is_named_it_needs_trust(stranger, name, monkeypatch):
    monkeypatch.chdir(stranger.folder)
    (stranger.folder / "link.py").symlink_to(stranger.module)
    (stranger.folder / "package").mkdir()
    shutil.copy(stranger.module, stranger.folder / "package" / "__init__.py")
    (stranger.folder / "linked_package").symlink_to(stranger.folder / "package")
    stranger.write([name.format(folder=stranger.folder)])
    with pytest.raises(ConfigError, match="trust_imports=True"):
        load_model("blip_caption", "tiny", checkpoint=stranger.folder)
    assert stranger.runs == 0
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("imports", ["parts.py", {"parts.py": 1}, [1], [["parts.py"]], [""]])
def test_imports_of_another_form_are_refused(stranger, imports):
    stranger.write(imports)
    for trust in (False, True):
        with pytest.raises(ConfigError, match="imports: expected"):
            load_model("blip_caption", "tiny", checkpoint=stranger.folder, trust_imports=trust)
    assert stranger.runs == 0


def test_trusted_code_runs_once(stranger):
    for _ in range(2):
        load_model("blip_caption", "tiny", checkpoint=stranger.folder, trust_imports=True)
    assert stranger.runs == 1
    load_model("blip_caption", "tiny", checkpoint=stranger.folder)  # imported by now, so no question of trust


def test_a_module_that_the_caller_imported_needs_no_trust(stranger):
    spec = importlib.util.spec_from_file_location("parts_of_the_caller", stranger.module)
    module = importlib.util.module_from_spec(spec)
    sys.modules["parts_of_the_caller"] = module
    spec.loader.exec_module(module)
    load_model("blip_caption", "tiny", checkpoint=stranger.folder)
    load_model("blip_caption", "tiny", checkpoint=stranger.folder, trust_imports=True)
    assert stranger.runs == 1


def test_a_file_of_the_same_name_elsewhere_is_another_file(stranger, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "parts.py").write_text("")
    import_modules([str(tmp_path / "mine" / "parts.py")])
    with pytest.raises(ConfigError, match="trust_imports=True"):
        load_model("blip_caption", "tiny", checkpoint=stranger.folder)
    assert stranger.runs == 0


def test_a_model_of_the_run_s_own_is_refused_in_the_same_sentence(stranger):
    stranger.write_own_model()
    with pytest.raises(ConfigError, match=r"imports .*parts\.py.*trust_imports=True"):
        load_model("trust_test_model", None, checkpoint=stranger.folder)
    model = load_model("trust_test_model", None, checkpoint=stranger.folder, trust_imports=True)
    assert type(model).__name__ == "TrustTestModel"


def test_a_model_that_the_caller_registered_needs_nothing_from_the_folder(stranger, tmp_path):
    stranger.write_own_model()
    (tmp_path / "moved.py").write_text(OWN_MODEL)
    import_modules([str(tmp_path / "moved.py")])
    assert type(load_model("trust_test_model", None, checkpoint=stranger.folder)).__name__ == "TrustTestModel"
    stranger.module.unlink()
    load_model("trust_test_model", None, checkpoint=stranger.folder)
    assert stranger.runs == 0
    del sys.modules[next(name for name in sys.modules if "moved" in name)]


def test_a_trusted_file_that_has_moved_is_named(stranger):
    stranger.write_own_model()
    stranger.write(["/nowhere/my_parts.py"])
    with pytest.raises(
        ConfigError, match=r"'trust_test_model', which no .*registers, and /nowhere/my_parts\.py"
    ):
        load_model("trust_test_model", None, checkpoint=stranger.folder, trust_imports=True)


def test_a_model_that_nothing_registers_is_named_with_what_to_do(stranger):
    stranger.model = {"arch": "somebodys_model"}
    stranger.write([])
    with pytest.raises(ConfigError, match=r"'somebodys_model', which no imported module registers.*--import"):
        load_model("somebodys_model", None, checkpoint=stranger.folder)


def test_a_weights_address_in_the_config_is_not_fetched(stranger):
    stranger.write(
        [], finetuned="http://127.0.0.1:9/weights.pth", pretrained="http://127.0.0.1:9/weights.pth"
    )
    load_model("blip_caption", "tiny", checkpoint=stranger.folder)


IMPOSSIBLE = {
    "width": {"vit_type": {"embed_dim": 10**9, "depth": 2, "num_heads": 4, "patch_size": 16}},
    "depth": {"vit_type": {"embed_dim": 32, "depth": 10**9, "num_heads": 4, "patch_size": 16}},
    "zero": {"vit_type": {"embed_dim": 32, "depth": 2, "num_heads": 0, "patch_size": 16}},
    "image": {"image_size": 10**6},
    "text": {"med_config": {"hidden_size": 65536, "num_hidden_layers": 1000, "num_attention_heads": 4}},
    "positions": {"med_config": {**TINY_SIZES["med_config"], "max_position_embeddings": 10**12}},
}


@pytest.mark.slow
@pytest.mark.parametrize("size", IMPOSSIBLE)
def test_sizes_in_the_config_take_no_memory_that_the_weights_do_not_need(stranger, size):
    stranger.write([], **IMPOSSIBLE[size])
    with pytest.raises((ConfigError, CheckpointError), match=r"must be from|describe a model of"):
        load_model("blip_caption", "tiny", checkpoint=stranger.folder)


def test_the_command_line_runs_it_with_a_flag_and_not_without(stranger):
    command = [sys.executable, "-m", "lavis_lite", "convert", str(stranger.folder), "--to", "salesforce"]
    command += ["-o", str(stranger.folder.parent / "out.pth")]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and stranger.runs == 0
    assert "--trust-imports" in refused.stderr and "Traceback" not in refused.stderr
    subprocess.run([*command, "--trust-imports"], capture_output=True, check=True)
    assert stranger.runs == 1
    subprocess.run([*command, "--import", str(stranger.module)], capture_output=True, check=True)
    assert stranger.runs == 2


@pytest.mark.parametrize("command", ["train", "evaluate", "caption", "search", "convert", "capfilt run"])
def test_every_command_that_opens_a_run_folder_has_the_flag(command, capsys):
    from lavis_lite.cli import main

    with pytest.raises(SystemExit):
        main(arguments=[*command.split(), "--help"])
    assert "--trust-imports" in capsys.readouterr().out
