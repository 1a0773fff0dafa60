"""Damaged checkpoints: refused in one error, or read with every tensor as it was."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import bounded, damaged, seeds
from safetensors.torch import save_file

from lavis_lite.common.checkpoint.file import tensors_in
from lavis_lite.common.checkpoint.store import CheckpointError, load_file, load_weights

SEEDS_OF_A_TEST = 50


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "visual_encoder.cls_token": torch.randn(1, 1, 16, generator=generator),
        "text_decoder.bert.embeddings.weight": torch.randn(40, 8, generator=generator),
        "text_decoder.bert.half": torch.randn(5, generator=generator).half(),
        "queue_ptr": torch.tensor([3]),
    }


def state_of_a_run() -> dict[str, Any]:
    moments = {0: {"step": torch.tensor(4.0), "exp_avg": torch.ones(3, 5)}}
    return {
        "model": weights(),
        "optimizer": {"state": moments, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "state": {"step": 4, "epoch": 1, "best_score": None},
        "ranks": [{"rng": {"python": [3, list(range(625)), None]}}],
    }


@pytest.fixture(scope="module", params=["zip", "legacy", "safetensors"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint in each format that is read."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "safetensors":
        save_file(weights(), folder / "weights.safetensors")
        return folder / "weights.safetensors"
    path = folder / "checkpoint.pth"
    torch.save(state_of_a_run(), path, _use_new_zipfile_serialization=request.param == "zip")
    return path


@pytest.mark.parametrize("first", seeds(100, 2000)[::SEEDS_OF_A_TEST])
def test_a_damaged_checkpoint_is_refused_or_read_right(whole, first, tmp_path):
    """Only the zip has checksums: in the other formats a changed number cannot be seen."""
    content, before = whole.read_bytes(), dict(tensors_in(load_file(whole)))
    has_checksums = whole.parent.name.startswith("zip")
    path = tmp_path / whole.name
    for seed in range(first, first + SEEDS_OF_A_TEST):
        changed, what = damaged(content, random.Random(seed))
        path.write_bytes(changed)
        for read in (load_file, load_weights):
            try:
                with bounded(seconds=20, mebibytes=200):
                    after = dict(tensors_in(read(path)))
            except CheckpointError as error:
                assert str(path) in str(error), (seed, what)
                continue
            if has_checksums and read is load_file:
                assert after.keys() == before.keys(), (seed, what)
                for key, tensor in before.items():
                    assert torch.equal(after[key], tensor), (seed, what, key)
            for tensor in after.values():
                assert tensor.numel() * tensor.element_size() <= len(changed), (seed, what)
