"""Parts of a run: schedules, frozen layers, parameter groups, precision."""

from __future__ import annotations

import copy

import pytest
import torch

from lavis_lite import load_model
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.optim import (
    MuonWithAdamW,
    SchedulePlan,
    constant_lr,
    linear_warmup_cosine_lr,
    linear_warmup_step_lr,
    parameter_groups,
)
from lavis_lite.runners.precision import Precision

PLAN = SchedulePlan(
    init_lr=1.0,
    min_lr=0.1,
    warmup_lr=0.0,
    warmup_steps=10,
    decay_rate=0.5,
    steps_per_epoch=20,
    total_steps=110,
)


def test_the_cosine_warms_up_and_ends_at_the_least_rate():
    rates = [linear_warmup_cosine_lr(step, PLAN) for step in range(111)]
    assert rates[0] == 0.0
    assert rates[5] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_the_steps_halve_each_epoch_down_to_the_least_rate():
    assert [linear_warmup_step_lr(step, PLAN) for step in (19, 20, 40, 100)] == [1.0, 0.5, 0.25, 0.1]


def test_the_constant_stays():
    assert [constant_lr(step, PLAN) for step in (10, 50, 109)] == [1.0, 1.0, 1.0]


@pytest.fixture
def model():
    return load_model("blip_caption", "tiny")


def test_only_the_last_layers_of_a_frozen_vision_transformer_train(model):
    model.freeze_parts(["visual_encoder"], unfreeze_last_vision_layers=2)
    loss = model({"image": torch.zeros(1, 3, 64, 64), "text_input": ["a picture of a circle"]}).loss
    loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert any(name.startswith("visual_encoder.blocks.2.") for name in trained)
    assert "visual_encoder.norm.weight" in trained
    assert not any(name.startswith(("visual_encoder.blocks.1.", "visual_encoder.patch")) for name in trained)
    assert any(name.startswith("text_decoder.") for name in trained)


def test_frozen_layers_stay_deterministic_in_training(model):
    model.freeze_parts(["visual_encoder"])
    model.train()
    assert not model.visual_encoder.training
    assert model.text_decoder.training


def test_freezing_what_is_not_there_is_an_error(model):
    with pytest.raises(ValueError, match="no part 'vision'; its parts are visual_encoder, text_decoder"):
        model.freeze_parts(["vision"])


def test_rates_are_scaled_by_part_and_vectors_do_not_decay(model):
    groups = parameter_groups(model, weight_decay=0.05, lr_scale={"visual_encoder": 0.1})
    assert {(group["lr_scale"], group["weight_decay"]) for group in groups} == {
        (1.0, 0.05),
        (1.0, 0.0),
        (0.1, 0.05),
        (0.1, 0.0),
    }
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert all(p.ndim < 2 for group in groups if group["weight_decay"] == 0 for p in group["params"])


def muon_of(model):
    return MuonWithAdamW(model, parameter_groups(model, 0.05, {"visual_encoder": 0.1}), 1e-3, (0.9, 0.98))


def test_muon_takes_the_linear_layers_and_adamw_the_rest(model):
    muon, adamw = muon_of(model).parts
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    matrices = {names[id(parameter)] for group in muon.param_groups for parameter in group["params"]}
    others = {names[id(parameter)] for group in adamw.param_groups for parameter in group["params"]}
    assert matrices | others == set(names.values())
    assert not matrices & others
    assert "visual_encoder.blocks.0.attn.qkv.weight" in matrices
    assert "text_decoder.bert.embeddings.word_embeddings.weight" in others
    assert all(name.endswith("weight") for name in matrices)
    assert {group["lr_scale"] for group in muon.param_groups} == {0.1, 1.0}


def test_muon_goes_on_from_its_saved_state_as_if_it_had_never_stopped(model):
    twin = copy.deepcopy(model)
    samples = {"image": torch.zeros(2, 3, 64, 64), "text_input": ["a picture of a circle"] * 2}

    def step(one, optimizer):
        optimizer.zero_grad()
        one(samples).loss.backward()
        optimizer.step()

    first = muon_of(model)
    step(model, first)
    second = muon_of(twin)
    twin.load_state_dict(model.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    step(model, first)
    step(twin, second)
    for name, parameter in twin.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


def test_fp16_without_a_gpu_is_refused():
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        Precision("fp16", torch.device("cpu"))


def test_bf16_computes_in_bf16():
    with Precision("bf16", torch.device("cpu")).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
