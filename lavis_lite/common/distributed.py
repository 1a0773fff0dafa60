"""Process groups: every function here also works in a single process."""

from __future__ import annotations

import datetime
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.signals import STOP_SIGNALS, signals_held

TIMEOUT = datetime.timedelta(minutes=30)


def launched_by_torchrun() -> bool:
    """Return True if `torch.distributed.run` started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch_id() -> str | None:
    """Return a short name of the launch, the same over its restarts; None without a launcher."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return hashlib.sha256(name.encode()).hexdigest()[:8] if name else None


def restarted() -> bool:
    """Return True if the launcher restarted this process after another one died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def is_active() -> bool:
    """Return True if a process group is initialized."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return the rank of this process, 0 in a single process."""
    return dist.get_rank() if is_active() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if is_active() else 1


def local_rank() -> int:
    """Return the rank of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def is_rank_zero() -> bool:
    """Return True on rank 0."""
    return rank() == 0


def start(device_type: str) -> None:
    """Initialize the process group, if a launcher started this process: NCCL on GPUs, else gloo."""
    if not launched_by_torchrun() or is_active():
        return
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=TIMEOUT, **_fresh_store())


def _fresh_store() -> dict[str, Any]:
    """Return a store that restarted processes do not share with the dead ones.

    The launcher keeps its store over restarts, with the addresses of dead processes. On several machines
    the counts of restarts may differ; there run_scripts/launch.sh handles it.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or os.environ.get("GROUP_WORLD_SIZE") != "1":
        return {}
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = dist.TCPStore(address, port, world_size, is_master=False, timeout=TIMEOUT)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return {"store": dist.PrefixStore(f"attempt_{attempt}", store), "rank": rank, "world_size": world_size}


def stop() -> None:
    """Destroy the process group, if there is one."""
    if is_active():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for all processes."""
    if is_active():
        dist.barrier()


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum of `tensor` over all ranks."""
    if not is_active():
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def gather_rows(tensor: Tensor) -> Tensor:
    """Return all ranks' rows of `tensor` (rows, ...), in order of rank; ranks may have different counts.

    Gradients do not flow; see `gather_rows_with_gradient`.
    """
    if not is_active():
        return tensor
    counts = gather_counts(len(tensor), tensor.device)
    padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
    padded[: len(tensor)] = tensor.detach()
    shares = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(shares, padded)
    return torch.cat([share[:count] for share, count in zip(shares, counts, strict=True)])


def gather_counts(count: int, device: torch.device) -> list[int]:
    """Return the `count` of every rank, in order of rank."""
    if not is_active():
        return [count]
    counts = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([count], device=device))
    return torch.cat(counts).tolist()


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        context.count = len(tensor)
        context.start = sum(gather_counts(len(tensor), tensor.device)[: rank()])
        return gather_rows(tensor)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return sum_over_ranks(gradient.contiguous())[context.start : context.start + context.count]


def gather_rows_with_gradient(tensor: Tensor) -> Tensor:
    """Return all ranks' rows, as `gather_rows`; the gradient is the sum of all ranks' gradients."""
    return _GatherRows.apply(tensor) if is_active() else tensor


def whole_tensor(tensor: Tensor) -> Tensor:
    """Return a sharded tensor as a whole (all ranks call it), another one unchanged."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def local_part(tensor: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor (the same memory), another one unchanged."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def part_like(tensor: Tensor, model: Any) -> Tensor:
    """Return `tensor`, which every rank has whole, sharded as `model` is."""
    if not hasattr(model, "placements"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(
        tensor.to(local_part(model).device), model.device_mesh, model.placements, src_data_rank=None
    )


def gather_objects(item: Any) -> list[Any]:
    """Return the `item` of every rank, in order of rank."""
    if not is_active():
        return [item]
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item)
    return items


def broadcast_object(item: Any) -> Any:
    """Return rank 0's `item`."""
    if not is_active():
        return item
    items = [item]
    dist.broadcast_object_list(items, src=0)
    return items[0]


def start_workers(loader: DataLoader) -> Iterator[Any]:
    """Return an iterator over `loader` whose workers start with stop signals blocked."""
    with signals_held():
        return iter(loader)


def leave_signals_to_parent(worker_id: int) -> None:
    """Make a worker ignore stop signals, which are often sent to a whole process group.

    For ``DataLoader(worker_init_fn=...)``. The worker ends when its parent terminates it or is gone.
    """
    for number in STOP_SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None or not hasattr(signal, "sigtimedwait"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return
    # Blocked, so that `sigtimedwait` receives it, which tells the sender.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, args=(parent.pid,), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        received = signal.sigtimedwait({signal.SIGTERM}, 1.0)
        if received is not None and received.si_pid == parent:
            break
    os._exit(0)


def pick_device(name: str) -> torch.device:
    """Return the device to run on; "auto" and "cuda" are the GPU of this rank, or the CPU without one.

    Raises:
        ConfigError: not a device, or one that this machine does not have.
    """
    if name in ("auto", "cuda"):
        return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device: torch.device | None = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device: unknown device {name!r}; choose auto, cpu, cuda or mps.")
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= gpus:
        here = f"the GPUs here are cuda:0 to cuda:{gpus - 1}" if gpus else "there is no CUDA GPU here"
        raise ConfigError(f"device: there is no {name}; {here}. Choose auto or cpu, or another GPU.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device: there is no mps here (it needs a Mac's GPU); choose auto or cpu.")
    return device
