"""The fast linear layer is `nn.Linear` but for its speed."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from lavis_lite import load_model
from lavis_lite.models.layers import cpu as cpu_layers
from lavis_lite.models.layers.cpu import FEW_ROWS, CpuLinear, CpuVisionAttention, choose_layers


def both(inner: int = 96, outer: int = 160, bias: bool = True) -> tuple[CpuLinear, nn.Linear]:
    torch.manual_seed(0)
    fast = CpuLinear(inner, outer, bias=bias)
    plain = nn.Linear(inner, outer, bias=bias)
    plain.load_state_dict(fast.state_dict())
    return fast, plain


def close(first: Tensor, second: Tensor, tolerance: float = 2e-6) -> bool:
    return first.dtype == second.dtype and torch.allclose(first, second, rtol=tolerance * 10, atol=tolerance)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 96), (2, 5, 96), (400, 96), (4, 300, 96), (0, 96)])
def test_it_computes_what_a_plain_one_does(shape, bias):
    fast, plain = both(bias=bias)
    states = torch.randn(shape)
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with mode():
            for _ in range(2):
                assert close(fast(states), plain(states))


@pytest.mark.parametrize("bias", [True, False])
def test_its_gradients_are_those_of_a_plain_one(bias):
    fast, plain = both(bias=bias)
    states = torch.randn(6, 70, 96)
    assert states.shape[0] * states.shape[1] * 96 * 160 >= cpu_layers.MIN_MULTIPLICATIONS
    results = []
    for layer in (fast, plain):
        given = states.clone().requires_grad_()
        (layer(given) ** 2).sum().backward()
        results.append([given.grad, *(parameter.grad for parameter in layer.parameters())])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_a_frozen_weight_gets_no_gradient_and_hands_it_on():
    fast, _ = both()
    fast.requires_grad_(False)
    states = torch.randn(500, 96, requires_grad=True)
    fast(states).sum().backward()
    assert states.grad is not None and fast.weight.grad is None and fast.bias.grad is None


@torch.inference_mode()
def test_weights_changed_in_place_are_seen_at_once():
    fast, plain = both()
    states = torch.randn(4, 96)
    for _ in range(3):
        fast(states)
    fast.weight.mul_(2.0)
    fast.bias.add_(1.0)
    assert close(fast(states), F.linear(states, fast.weight, fast.bias))
    for _ in range(3):
        fast(states)
    fast.load_state_dict(plain.state_dict())
    assert close(fast(states), plain(states))


@torch.inference_mode()
def test_weights_of_another_type_are_seen_at_once():
    fast, _ = both()
    states = torch.randn(4, 96)
    for _ in range(3):
        fast(states)
    fast.to(torch.bfloat16)
    for _ in range(3):
        said = fast(states.bfloat16())
        assert close(said, F.linear(states.bfloat16(), fast.weight, fast.bias), tolerance=2e-2)


@torch.inference_mode()
def test_under_autocast_it_computes_in_the_type_of_autocast():
    fast, plain = both()
    for rows in (4, 500):
        states = torch.randn(rows, 96)
        with torch.autocast("cpu", torch.bfloat16):
            for _ in range(3):
                assert close(fast(states), plain(states), tolerance=2e-2)


@torch.inference_mode()
def test_packed_weights_are_not_copied_along_nor_saved():
    fast, plain = both()
    states = torch.randn(4, 96)
    for _ in range(3):
        fast(states)
    for again in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        again.weight.zero_()
        assert close(again(states), again.bias.expand(4, -1))
    assert close(fast(states), plain(states))
    assert list(fast.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize(("mode", "times"), [(torch.inference_mode, 1), (torch.no_grad, 0)])
def test_weights_are_packed_once_and_in_inference_mode_alone(mode, times, monkeypatch):
    if not cpu_layers._can_pack(torch.float32):
        pytest.skip("this processor or this torch cannot pack weights")
    packed = []
    reorder = torch.ops.mkldnn._reorder_linear_weight
    monkeypatch.setattr(
        torch.ops.mkldnn, "_reorder_linear_weight", lambda *given: packed.append(1) or reorder(*given)
    )
    fast, _ = both()
    states = torch.randn(FEW_ROWS, 96)
    with mode():
        for _ in range(4):
            fast(states)
    assert len(packed) == times


@torch.inference_mode()
def test_the_first_product_has_the_bits_of_all_later_ones():
    fast, _ = both()
    states = torch.randn(3, 96)
    first = fast(states)
    assert all(torch.equal(fast(states), first) for _ in range(3))


def test_layers_that_others_built_become_fast_with_their_weights():
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Sequential(nn.Linear(8, 2)))
    states = torch.randn(3, 4)
    expected = model(states)
    choose_layers(model, torch.device("cpu"))
    assert [type(part) for part in model.modules() if isinstance(part, nn.Linear)] == [CpuLinear, CpuLinear]
    assert torch.equal(model(states), expected)


def test_a_model_has_the_fast_layers_on_a_cpu_only():
    model = load_model("blip_caption", "tiny")
    attention = model.visual_encoder.blocks[0].attn
    assert (type(attention), type(attention.qkv)) == (CpuVisionAttention, CpuLinear)
    model.to("meta")
    assert (type(attention), type(attention.qkv)) == (Attention, nn.Linear)


@torch.inference_mode()
def test_attention_in_bfloat16_is_that_of_timm():
    torch.manual_seed(0)
    plain = Attention(96, num_heads=4, qkv_bias=True).eval().bfloat16()
    states = torch.randn(3, 50, 96).bfloat16()
    expected = plain(states)
    choose_layers(plain, torch.device("cpu"))
    torch.testing.assert_close(plain(states), expected, rtol=2e-2, atol=2e-2)
