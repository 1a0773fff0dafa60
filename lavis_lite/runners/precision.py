"""The precision that a run computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from lavis_lite.common.config.schema import ConfigError


class Precision:
    """Autocast and gradient scaling for a device.

    Args:
        amp: "bf16", "fp16", True (the better of the two that the device has), False, or "auto"
            (bf16 on a GPU that has it, else full precision).

    Raises:
        ConfigError: fp16 without a GPU.
    """

    def __init__(self, amp: bool | str, device: torch.device) -> None:
        self.device = device
        gpu_has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        if amp == "auto":
            amp = "bf16" if gpu_has_bf16 else False
        elif amp is True:
            amp = "fp16" if device.type == "cuda" and not gpu_has_bf16 else "bf16"
        if amp == "fp16" and device.type != "cuda":
            raise ConfigError(f"run.amp: fp16 needs a GPU, but the run is on {device}; use bf16 or false.")
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, False: None}[amp]
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    @property
    def scales_gradients(self) -> bool:
        """True if non-finite gradients are expected (fp16 loss scaling)."""
        return self.scaler.is_enabled()

    def autocast(self) -> AbstractContextManager:
        """Return the context to compute in."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)
