"""CapFilt on a Ray cluster (the extra ``ray``): the same work, unit by unit, handed out by Ray Data."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

DoUnit = Callable[[int], list[str]]


class _Worker:
    """An actor that holds the models and does the units it is given."""

    def __init__(self, build: Callable[..., DoUnit], arguments: dict[str, Any]) -> None:
        self.do_unit = build(**arguments)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"unit": row["unit"], "failed": "\n".join(self.do_unit(int(row["unit"])))}


def run_on_ray(
    build: Callable[..., DoUnit], arguments: dict[str, Any], units: int, workers: int, gpus: float = 0.0
) -> list[str]:
    """Do `units` units on `workers` actors; return the names of those that failed.

    The cluster is the one that ``RAY_ADDRESS`` names, or this machine. A unit whose actor dies is
    given to another one; units that are done cost nothing to ask for again.

    Args:
        build: called with `arguments` on each actor; returns what does a unit by its number.
        gpus: of each actor.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if not ray.is_initialized():
        on_sigterm = signal.getsignal(signal.SIGTERM)
        ray.init(log_to_driver=False, configure_logging=False)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # which Ray replaces
    rows = ray.data.from_items([{"unit": number} for number in range(units)], override_num_blocks=units)
    done = rows.map(
        _Worker,
        fn_constructor_args=(build, arguments),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_gpus=gpus,
    )
    try:
        failed = [name for row in done.iter_rows() for name in row["failed"].splitlines()]
    except BaseException:
        ray.shutdown()  # else actors outlive a process that leaves without the usual cleaning up
        raise
    return sorted(failed)
