"""The same global batch means the same on one rank and on two: losses, gradients, queues."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from processes import run

from lavis_lite import load_model
from lavis_lite.common import distributed

TEXTS = ["a red circle", "a small star", "a blue heart on a gray background", "two green squares"]
PLACE = {"epoch": 0, "iters": 3, "num_iters_per_epoch": 10}


def step(name: str, rank: int, world_size: int, **settings: object) -> dict[str, object]:
    """Train one step on this rank's share of four pairs; return the mean losses, gradients and queue."""
    torch.manual_seed(0)
    model = load_model(name, "tiny", queue_size=6, embed_dim=16, **settings).train()
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    share = slice(rank * 4 // world_size, (rank + 1) * 4 // world_size)
    samples = {"image": images[share], "text_input": TEXTS[share], "image_id": [5, 6, 5, 7][share], **PLACE}
    wrapped = torch.nn.parallel.DistributedDataParallel(model) if world_size > 1 else model
    output = wrapped(samples)
    output.loss.backward()
    model.after_step()
    losses = torch.stack([output.loss.detach(), output.loss_itc.detach(), output.loss_itm.detach()])
    gradients = {key: p.grad for key, p in model.named_parameters() if p.grad is not None}
    losses = distributed.sum_over_ranks(losses) / world_size
    return {"losses": losses, "gradients": gradients, "queue": model.text_queue}


@pytest.mark.parametrize("name", ["blip_pretrain", "blip_retrieval"])
def test_two_ranks_train_as_one_does(name, tmp_path: Path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    result = run([*command, __file__, name, str(tmp_path)], PYTHONPATH=":".join(sys.path))
    assert result.returncode == 0, result.stderr
    expected = step(name, 0, 1, negative_all_rank=True)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        torch.testing.assert_close(found["losses"], expected["losses"], rtol=0, atol=1e-5)
        torch.testing.assert_close(found["queue"], expected["queue"], rtol=0, atol=1e-5)
        assert found["gradients"].keys() == expected["gradients"].keys()
        for key, gradient in expected["gradients"].items():
            torch.testing.assert_close(found["gradients"][key], gradient, rtol=1e-4, atol=1e-5)


def _rank_main(name: str, folder: Path) -> None:
    """Be one of two ranks."""
    distributed.start("cpu")
    rank = distributed.rank()
    torch.save(step(name, rank, distributed.world_size(), negative_all_rank=True), folder / f"{rank}.pth")
    distributed.stop()


if __name__ == "__main__":
    _rank_main(sys.argv[1], Path(sys.argv[2]))
