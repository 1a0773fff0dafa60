"""The model and device that a command line asks for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


def model_of(checkpoint: str, name: str, model_type: str | None) -> tuple[str, str | None]:
    """Return name and type of the model of `checkpoint`; a run folder records its own.

    Raises:
        ConfigError: the run folder's config is damaged, or names modules that are not imported or trusted.
    """
    from lavis_lite.common.run_folder import RunFolder

    run = RunFolder.at(checkpoint) if checkpoint else None
    if run is None:
        return name, model_type
    run.import_modules()
    return run.arch()


def choose_device(device: str) -> torch.device:
    """Return the device to run on, with a warning if "cuda" is requested without a GPU.

    Raises:
        ConfigError: not a device, or one that this machine does not have.
    """
    from lavis_lite.common import distributed

    picked = distributed.pick_device(device)
    if device == "cuda" and picked.type != "cuda":
        logger.warning("--device is cuda but there is no GPU here: running on the CPU.")
    return picked
