"""Compiled layers compute what the plain ones do, whatever the texts' length."""

from __future__ import annotations

import copy

import pytest
import torch

from lavis_lite import load_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    one_layer = {
        "vit_type": {"embed_dim": 32, "depth": 1, "num_heads": 4, "patch_size": 16},
        "med_config": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4},
    }
    plain = load_model("blip_caption", "tiny", is_eval=True, **one_layer)
    compiled = copy.deepcopy(plain)
    compiled.compile_parts()
    return plain, compiled


def loss_and_gradient(model, captions):
    model.zero_grad()
    image = torch.randn(len(captions), 3, 64, 64, generator=torch.Generator().manual_seed(1))
    loss = model({"image": image, "text_input": captions}).loss
    loss.backward()
    return loss.detach(), model.visual_encoder.blocks[0].attn.qkv.weight.grad


def test_losses_and_gradients_stay_at_every_length_without_compiling_again(models):
    plain, compiled = models
    for words in (3, 5, 9):
        captions = [" ".join(["circle"] * words), "a red square"]
        for expected, found in zip(
            loss_and_gradient(plain, captions), loss_and_gradient(compiled, captions), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    loss_and_gradient(compiled, ["a circle and a square and a star", "a red square"])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


def test_captions_stay(models):
    plain, compiled = models
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    settings = {"num_beams": 2, "max_length": 8, "min_length": 8}
    assert compiled.generate({"image": image}, **settings) == plain.generate({"image": image}, **settings)
