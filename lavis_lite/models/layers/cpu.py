"""Faster matrix products and attention on a CPU; the results differ from torch's by rounding only.

`BaseModel` switches these layers on when its weights go to a CPU, and off when they leave it. Three
things are slow there (docs/benchmarks.md has the numbers):

- A product of few rows, as in decoding, takes as long as reading its weights from memory. In the layout
  that oneDNN packs them into, they are read two to four times as fast.
- MKL, behind torch's float32 products, has fast kernels for Intel's processors only. On AMD's, oneDNN
  takes half the time, in training too.
- In bfloat16, fused attention takes twice as long as two plain products whose scores fit the cache.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

FEW_ROWS = 64
MIN_MULTIPLICATIONS = 1 << 21  # below this, choosing a kernel takes longer than it saves


class CpuLinear(nn.Linear):
    """`nn.Linear` by oneDNN where that is faster."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return super().forward(input)
        dtype = _product_dtype(input)
        rows = input.numel() // self.in_features
        if torch.is_inference_mode_enabled() and 0 < rows <= FEW_ROWS:
            packed = _packed_weights(self, dtype)
            if packed is not None:
                return _product(input.to(dtype), *packed)
        is_large = rows * self.weight.numel() >= MIN_MULTIPLICATIONS
        is_float32 = dtype == input.dtype == self.weight.dtype == torch.float32
        if is_float32 and is_large and _is_onednn_faster():
            return _Product.apply(input, self.weight, self.bias)
        return super().forward(input)


class CpuVisionAttention(Attention):
    """timm's attention; in bfloat16, without gradients, image by image."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        is_bfloat16 = _product_dtype(x) == torch.bfloat16
        is_inference = not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling())
        is_masked = attn_mask is not None or is_causal
        has_extras = self.gate is not None or any(
            not isinstance(norm, nn.Identity) for norm in (self.q_norm, self.k_norm, self.norm)
        )
        if x.device.type != "cpu" or not (is_bfloat16 and is_inference) or is_masked or has_extras:
            return super().forward(x, attn_mask, is_causal)
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (images, tokens, 3, heads, head_dim)
        context = torch.stack([self._context(image) for image in qkv.permute(0, 2, 3, 1, 4)])
        return self.proj(context.transpose(1, 2).flatten(2))

    def _context(self, qkv: Tensor) -> Tensor:
        """Return (heads, tokens, head_dim) of one image's queries, keys and values."""
        query, key, value = qkv
        return ((query * self.scale) @ key.mT).softmax(-1) @ value


CPU_LAYERS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: CpuLinear, Attention: CpuVisionAttention}


def choose_layers(model: nn.Module, device: torch.device) -> None:
    """Give the layers of `model` the class that is fastest on `device`; weights and their names stay."""
    classes = CPU_LAYERS if device.type == "cpu" else {fast: plain for plain, fast in CPU_LAYERS.items()}
    for layer in model.modules():
        layer.__class__ = classes.get(type(layer), type(layer))


def _product_dtype(input: Tensor) -> torch.dtype:
    """Return the type in which a layer multiplies `input`."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype


class _Product(torch.autograd.Function):
    """``input @ weight.T + bias`` and its gradients, by oneDNN."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        return _product(input, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        input, weight = ctx.saved_tensors
        rows = gradient.reshape(-1, weight.shape[0])
        needs_input, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _product(rows, weight.t(), None).view(input.shape) if needs_input else None,
            _product(rows.t(), input.reshape(rows.shape[0], -1).t(), None) if needs_weight else None,
            rows.sum(0) if needs_bias else None,
        )


def _product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


PackedWeights = tuple[Tensor, Tensor | None]
_packed: WeakKeyDictionary[nn.Linear, tuple[tuple[object, ...], PackedWeights]] = WeakKeyDictionary()


def _packed_weights(linear: nn.Linear, dtype: torch.dtype) -> PackedWeights | None:
    """Return packed weights and the bias, packed again whenever the weights have changed.

    Only in inference mode, where weights stay the same for many products. Nothing here depends on
    earlier calls: the same input must give the same bits after a restart.
    """
    weight, bias = linear.weight, linear.bias
    if not _can_pack(dtype) or weight.is_inference():
        return None
    version = (dtype, *((t.data_ptr(), t._version) for t in (weight, bias) if t is not None))
    packed_version, packed = _packed.get(linear, (None, None))
    if packed_version != version:
        packed = (
            torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype), FEW_ROWS // 4),
            None if bias is None else bias.detach().to(dtype),
        )
        _packed[linear] = (version, packed)
    return packed


@cache
def _can_pack(dtype: torch.dtype) -> bool:
    if not _has_onednn():
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32


@cache
def _is_onednn_faster() -> bool:
    return _has_onednn() and _is_amd()


@cache
def _has_onednn() -> bool:
    """Return True if torch has these operators, which it does not document, and they still agree with it."""
    operators = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return False
    if not all(hasattr(torch.ops.mkldnn, operator) for operator in operators):
        return False
    rows, weight, bias = (torch.arange(n * m).view(n, m) / 7 for n, m in ((2, 16), (32, 16), (1, 32)))
    try:
        with torch.no_grad():
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, 2)
            products = (_product(rows, weight, bias[0]), _product(rows, packed, bias[0]))
    except (RuntimeError, TypeError):
        return False
    return all(torch.allclose(product, F.linear(rows, weight, bias[0]), rtol=1e-5) for product in products)


def _is_amd() -> bool:
    description = Path("/proc/cpuinfo")
    if description.is_file():
        return "AuthenticAMD" in description.read_text(encoding="utf-8", errors="replace")[:4096]
    return "AMD" in platform.processor()
