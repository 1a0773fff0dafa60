"""Weights as other programs leave them: read where it is plain what is meant, named where it is not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lavis_lite import load_model
from lavis_lite.common.checkpoint.store import CheckpointError
from lavis_lite.common.checkpoint.weights import without_wrappers
from lavis_lite.common.config.schema import ConfigError

StateDict = dict[str, Tensor]
ARCHES = (
    "blip_caption",
    "blip_vqa",
    "blip_retrieval",
    "blip_image_text_matching",
    "blip_nlvr",
    "blip_classification",
)


@pytest.fixture(scope="module")
def weights() -> dict[str, StateDict]:
    torch.manual_seed(0)
    return {arch: load_model(arch, "tiny").state_dict() for arch in ARCHES}


@pytest.fixture
def captioner(weights) -> StateDict:
    return weights["blip_caption"]


def prefixed(prefix: str) -> Callable[[StateDict], StateDict]:
    return lambda state: {prefix + key: tensor for key, tensor in state.items()}


def inside(key: str) -> Callable[[StateDict], dict[str, Any]]:
    return lambda state: {key: dict(state), "epoch": 3, "optimizer": {"state": {}}}


def of_fsdp(state: StateDict) -> StateDict:
    return {
        key.replace(".attn.", "._fsdp_wrapped_module._checkpoint_wrapped_module.attn."): t
        for key, t in state.items()
    }


FORMS: dict[str, Callable[[StateDict], dict[str, Any]]] = {
    "bare": dict,
    "DDP": lambda state: {"model": prefixed("module.")(state)},
    "compiled": lambda state: {"model": prefixed("_orig_mod.")(state)},
    "DDP of a compiled model": lambda state: {"model": prefixed("module._orig_mod.")(state)},
    "Lightning": lambda state: {"state_dict": prefixed("model.")(state), "epoch": 3},
    "Lightning with a wrapper": lambda state: {"state_dict": prefixed("net.module.")(state)},
    "FSDP": lambda state: {"model": of_fsdp(prefixed("_fsdp_wrapped_module.")(state))},
    "DeepSpeed": inside("module"),
    "average alone": inside("model_ema"),
    "nested": lambda state: {"state_dict": {"model": dict(state)}},
    **{key: inside(key) for key in ("state_dict", "model_state_dict", "weights", "net")},
    "half": lambda state: {"model": {k: v.half() if v.is_floating_point() else v for k, v in state.items()}},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_that_are_plain_are_read(form, captioner, tmp_path):
    torch.save(FORMS[form](captioner), tmp_path / "weights.pth")
    loaded = load_model("blip_caption", "tiny", checkpoint=tmp_path / "weights.pth").state_dict()
    expected = {k: v.half().float() if v.is_floating_point() else v for k, v in captioner.items()}
    expected = expected if form == "half" else captioner
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)


def test_of_weights_and_their_average_the_weights_are_taken_and_it_is_said(captioner, tmp_path, caplog):
    average = {key: torch.zeros_like(tensor) for key, tensor in captioner.items()}
    torch.save({"model_ema": average, "model": dict(captioner)}, tmp_path / "weights.pth")
    model = load_model("blip_caption", "tiny", checkpoint=tmp_path / "weights.pth")
    assert torch.equal(model.visual_encoder.cls_token, captioner["visual_encoder.cls_token"])
    assert "took 'model'; the file also holds 'model_ema'" in caplog.text


def test_a_removed_prefix_is_said_in_one_line(captioner, tmp_path, caplog):
    torch.save({"model": prefixed("module.")(captioner)}, tmp_path / "weights.pth")
    with caplog.at_level(logging.INFO):
        load_model("blip_caption", "tiny", checkpoint=tmp_path / "weights.pth")
    assert caplog.text.count("removed the prefix 'module.' from all 118 keys") == 1


def test_a_module_s_own_prefix_stays():
    """A model may have a part that is called as a wrapper's prefix."""
    state = {"model.weight": torch.ones(1), "model.bias": torch.ones(1)}
    assert without_wrappers(state, state.keys(), "a file") == state
    assert without_wrappers(prefixed("module.")(state), state.keys(), "a file").keys() == state.keys()


def test_two_weights_of_one_name_are_refused():
    state = {"a.weight": torch.ones(1), "a._orig_mod.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="two weights of one name"):
        without_wrappers(state, ["a.weight"], "a file")


UNCLEAR: dict[str, tuple[Callable[[StateDict], Any], str]] = {
    "two networks": (
        lambda state: {"net_g": dict(state), "net_d": dict(state)},
        r"'net_g' \(118 tensors\), 'net_d' .*torch\.load\(PATH, weights_only=True\)\['net_g'\]",
    ),
    "two places": (
        lambda state: {"state_dict": dict(state), "weights": dict(state)},
        r"does not say which weights are meant",
    ),
    "other keys too": (
        lambda state: {"state_dict": {**prefixed("model.")(state), "loss.weight": torch.ones(1)}},
        r"named model\.\*, among 1 others; save only those, with 'model\.' removed",
    ),
    "a number among them": (
        lambda state: {**state, "epoch": 3},
        r"1 entries that are no tensors \('epoch'\)",
    ),
    "none": (lambda state: {"epoch": 3}, r"holds no weights where they are looked for, but 'epoch' \(int\)"),
    "a list": (lambda state: [1], "holds no weights but a list"),
    "LoRA": (lambda state: {"base_model.model.x.lora_A.weight": torch.ones(2, 2)}, "adapter of PEFT"),
    "BLIP-2": (lambda state: {"Qformer.bert.x": torch.ones(1), "query_tokens": torch.ones(1)}, "BLIP-2"),
    "transformers": (lambda state: {"vision_model.x": torch.ones(1)}, "folder that holds this file"),
    "integers": (
        lambda state: {key: tensor.to(torch.int8) for key, tensor in state.items()},
        "keys of another kind of number: .* int8, needed float32",
    ),
    "NaN": (
        lambda state: {**state, "visual_encoder.cls_token": state["visual_encoder.cls_token"] * float("nan")},
        r"1 keys hold NaN or infinity: visual_encoder\.cls_token",
    ),
    "no data": (lambda state: {key: tensor.to("meta") for key, tensor in state.items()}, "without data"),
    "inference": (lambda state: {"model": dict(state), "inference": [1]}, "'inference' is not a mapping"),
}


@pytest.mark.parametrize("form", UNCLEAR)
def test_what_is_not_plain_is_named(form, captioner, tmp_path):
    content, message = UNCLEAR[form]
    torch.save(content(captioner), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model("blip_caption", "tiny", checkpoint=tmp_path / "weights.pth")
    assert str(caught.value).startswith(str(tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    ("arch", "held"),
    [
        ("blip_caption", "blip_retrieval"),
        ("blip_caption", "blip_image_text_matching"),
        ("blip_caption", "blip_nlvr"),
        ("blip_vqa", "blip_caption"),
        ("blip_image_text_matching", "blip_vqa"),
        ("blip_retrieval", "blip_classification"),
        ("blip_classification", "blip_nlvr"),
        ("blip_nlvr", "blip_classification"),
    ],
)
def test_weights_of_another_architecture_are_called_by_its_name_first(arch, held, weights, tmp_path):
    torch.save({"model": weights[held]}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=rf"it holds the weights of {held}, not of {arch}\. .*keys"):
        load_model(arch, "tiny", checkpoint=tmp_path / "weights.pth")


def test_layers_that_the_model_lacks_are_not_dropped(captioner, tmp_path):
    layer = {key.replace("layer.0.", "layer.9."): t for key, t in captioner.items() if ".layer.0." in key}
    torch.save({**captioner, **layer}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"keys unexpected: text_decoder\.bert\.encoder\.layer\.9"):
        load_model("blip_caption", "tiny", checkpoint=tmp_path / "weights.pth")


def test_a_run_s_checkpoint_says_itself_what_it_is(tmp_path):
    content = {"model": {"layer.weight": torch.ones(1)}, "config": {"model": {"arch": "my_model"}}}
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="holds the weights of my_model, not of blip_caption"):
        load_model("blip_caption", "tiny", checkpoint=tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"vit_type": {"embed_dim": 64, "depth": 2, "num_heads": 4, "patch_size": 16}},
            "vision transformer is of 2 blocks of width 64 .*, the model's is of 4 blocks of width 128",
        ),
        ({"tokenizer": "{vocabulary}"}, r"its vocabulary has \d+ tokens, the model's tokenizer 318"),
    ],
)
def test_another_size_is_said_before_the_keys(settings, message, tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    settings = {k: str(tmp_path) if v == "{vocabulary}" else v for k, v in settings.items()}
    torch.save(load_model("blip_caption", "tiny", **settings).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=message):
        load_model("blip_caption", "tiny", checkpoint=tmp_path / "weights.pth")


FOLDERS = {
    "PEFT": (["adapter_config.json", "adapter_model.safetensors"], "adapter of PEFT"),
    "FSDP": ([".metadata", "__0_0.distcp"], r"torch\.distributed .*dcp_to_torch"),
    "DeepSpeed": (["latest", "zero_to_fp32.py"], "zero_to_fp32"),
    "TensorFlow": (["saved_model.pb"], "TensorFlow"),
    "nothing": (["notes.txt"], "is neither the folder of a run"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_of_other_programs_are_called_by_their_name(kind, tmp_path):
    files, message = FOLDERS[kind]
    for name in files:
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(ConfigError, match=message):
        load_model("blip_caption", "tiny", checkpoint=tmp_path)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("output/my_rn", "did you mean output/my_run?"),
        ("outptu/my_run", "did you mean output/my_run?"),
        ("./output/my_rn", "did you mean output/my_run?"),
        ("output/my_run/checkpoin", "did you mean output/my_run/checkpoints?"),
        ("weights.pht", "no such file or folder; did you mean weights.pth?"),
        ("weights.pth/model.pth", "weights.pth is a file"),
        ("nowhere", "no such file or folder"),
        ("~nobody_of_this_name/x.pth", "home"),
        ("x" * 5000, "too long|no such file"),
        ("a\0b.pth", "no such file|null"),
    ],
)
def test_a_mistyped_path_is_not_blamed_on_the_hub(address, message, tmp_path, monkeypatch):
    (tmp_path / "output" / "my_run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "weights.pth").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=message.replace("?", r"\?")):
        load_model("blip_caption", "tiny", checkpoint=address)


def test_a_hub_name_whose_owner_is_a_folder_here_names_both(tmp_path, monkeypatch):
    (tmp_path / "Salesforce").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no such file or folder.*As the name of a hub repository:"):
        load_model("blip_caption", "tiny", checkpoint="Salesforce/blip-nothing")


def test_the_checkpoints_folder_of_a_run_points_at_the_run(tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(ConfigError, match=rf"name the run folder {tmp_path}"):
        load_model("blip_caption", "tiny", checkpoint=tmp_path / "checkpoints")
