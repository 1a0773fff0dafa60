"""`nn.Linear` that uses a CPU fully, where torch's own does not.

Two things slow torch's matrix products on a CPU. Of few rows, as decoding has them, a product takes
as long as its weights take to come from memory, and in the layout that oneDNN packs them into they
come two to four times as fast. And the library behind float32 products (MKL) keeps its fast kernels to
Intel's processors; on AMD's, oneDNN takes half the time. Everywhere else this is `nn.Linear`.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_ROWS = 64
LEAST_WORK = 1 << 21  # multiplications below which choosing costs more than it gains


class Linear(nn.Linear):
    """`nn.Linear` with its weights, names and results, up to rounding."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return super().forward(input)
        is_cast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if is_cast else input.dtype
        rows = input.numel() // self.in_features
        if torch.is_inference_mode_enabled() and 0 < rows <= FEW_ROWS:
            packed = _packed(self, dtype)
            if packed is not None:
                return _product(input.to(dtype), *packed)
        work = rows * self.weight.numel()
        plain = dtype == self.weight.dtype == torch.float32
        if plain and not is_cast and work >= LEAST_WORK and _is_faster_with_onednn():
            return _Product.apply(input, self.weight, self.bias)
        return super().forward(input)


def use_fast_linear(module: nn.Module) -> None:
    """Make every plain `nn.Linear` in `module`, which another library built, a `Linear`."""
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = Linear


class _Product(torch.autograd.Function):
    """``input @ weight.T + bias`` and its gradients, by oneDNN."""

    @staticmethod
    def forward(ctx, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        return _product(input, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        input, weight = ctx.saved_tensors
        rows = gradient.reshape(-1, weight.shape[0])
        of_input, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(rows, weight.t(), None).view(input.shape) if of_input else None,
            _product(rows.t(), input.reshape(rows.shape[0], -1).t(), None) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


_kept: WeakKeyDictionary[nn.Linear, tuple[tuple, tuple[Tensor, Tensor | None]]] = WeakKeyDictionary()


def _packed(linear: nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor | None] | None:
    """Return packed weights, and the bias; made anew whenever the weights have changed.

    Only in inference mode, in which weights stay as they are for many products. Nothing here depends
    on what was computed before: the same input must give the same bits after a restart, too.
    """
    weight, bias = linear.weight, linear.bias
    if not _can_pack(dtype) or weight.is_inference():
        return None
    key = (dtype, *((t.data_ptr(), t._version) for t in (weight, bias) if t is not None))
    kept_key, packed = _kept.get(linear, (None, None))
    if kept_key != key:
        packed = (
            torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(dtype), FEW_ROWS // 4),
            None if bias is None else bias.detach().to(dtype),
        )
        _kept[linear] = (key, packed)
    return packed


@cache
def _can_pack(dtype: torch.dtype) -> bool:
    if not _has_onednn():
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32


@cache
def _is_faster_with_onednn() -> bool:
    return _has_onednn() and _is_amd()


@cache
def _has_onednn() -> bool:
    """Whether torch has the operators, which are not among its documented ones, and they still agree."""
    operators = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return False
    if not all(hasattr(torch.ops.mkldnn, operator) for operator in operators):
        return False
    rows, weight, bias = (torch.arange(n * m).view(n, m) / 7 for n, m in ((2, 16), (32, 16), (1, 32)))
    try:
        with torch.no_grad():
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, 2)
            ways = (_product(rows, weight, bias[0]), _product(rows, packed, bias[0]))
    except (RuntimeError, TypeError):
        return False
    return all(torch.allclose(way, F.linear(rows, weight, bias[0]), rtol=1e-5) for way in ways)


def _is_amd() -> bool:
    description = Path("/proc/cpuinfo")
    if description.is_file():
        return "AuthenticAMD" in description.read_text(encoding="utf-8", errors="replace")[:4096]
    return "AMD" in platform.processor()
