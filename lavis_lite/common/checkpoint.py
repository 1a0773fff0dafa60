"""Checkpoints that survive: written aside and renamed, checked before use, loaded strictly."""

from __future__ import annotations

import logging
import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite.common.files import atomic_writer, first_line

logger = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit; the message says which and why."""


def save_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Write `content` so that `path` holds either all of it or what it held before, whatever happens."""
    with atomic_writer(path) as file:
        torch.save(content, file)


def load_file(path: str | Path, map_location: str = "cpu") -> Any:
    """Return what a checkpoint file holds: ``.safetensors``, or a pickle of plain values and tensors.

    Raises:
        CheckpointError: no such file, damaged, or a pickle that would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file.")
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    _refuse_damaged_zip(path)
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: the file asks for more than tensors and plain values ({first_line(error)}); loading it "
            "could run somebody's code, so it is refused. If you trust it, load it yourself and save "
            'its weights again with torch.save({"model": state_dict}, path).'
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({first_line(error)}).") from error


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file as load_safetensors

    try:
        return load_safetensors(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({first_line(error)}).") from error


def _refuse_damaged_zip(path: Path) -> None:
    """Check the CRC of every member: torch itself does not, and would load flipped bits."""
    if not zipfile.is_zipfile(path):
        return  # the old format has no checks to make
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise CheckpointError(f"{path}: the file is damaged ({first_line(error)}).") from error
    if damaged is not None:
        raise CheckpointError(f"{path}: the file is damaged (member {damaged}).")


def load_weights(url_or_filename: str | Path) -> dict[str, Any]:
    """Return a checkpoint as ``{"model": state_dict, ...}``; a bare state dict is wrapped.

    Raises:
        CheckpointError: it cannot be read, or holds no weights.
    """
    from lavis_lite.common.storage import fetch

    try:
        content = load_file(fetch(str(url_or_filename)))
    except OSError as error:
        raise CheckpointError(f"no weights at {url_or_filename}: {error}") from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        return dict(content)
    if isinstance(content, Mapping) and content and all(isinstance(v, Tensor) for v in content.values()):
        return {"model": content}
    raise CheckpointError(
        f"{url_or_filename}: holds no weights; expected a state dict, or one under 'model'."
    )


def load_strictly(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    source: str,
    unneeded: Iterable[str] = (),
    fresh: Iterable[str] = (),
) -> None:
    """Load `state_dict` into `module`, every key accounted for.

    Args:
        unneeded: beginnings of keys that the file may hold although the module has no such part.
        fresh: beginnings of keys that the file may lack: these weights stay as they are.

    Raises:
        CheckpointError: missing, unexpected or mis-shaped keys, all named.
    """
    own = module.state_dict()
    # A buffer that holds no knowledge may be missing (position_ids is, in newer files).
    derived = {key for key in own if key.endswith("position_ids")}
    missing = sorted(own.keys() - state_dict.keys() - derived)
    started_fresh = [key for key in missing if key.startswith(tuple(fresh))]
    missing = [key for key in missing if key not in started_fresh]
    unexpected = sorted(key for key in state_dict.keys() - own.keys() if not key.startswith(tuple(unneeded)))
    shapes = [
        f"{key} {tuple(state_dict[key].shape)}, needed {tuple(own[key].shape)}"
        for key in sorted(own.keys() & state_dict.keys())
        if state_dict[key].shape != own[key].shape
    ]
    complaints = [
        _complaint("missing", missing),
        _complaint("unexpected", unexpected),
        _complaint("of another shape", shapes),
    ]
    if any(complaints):
        raise CheckpointError(
            f"{source}: the weights do not fit {type(module).__name__}. " + " ".join(filter(None, complaints))
        )
    module.load_state_dict({key: state_dict[key] for key in own if key in state_dict}, strict=False)
    if started_fresh:
        logger.info("%s: %s", source, _complaint("are not there and start anew", started_fresh))


def _complaint(what: str, keys: list[str], shown: int = 8) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return f"{len(keys)} keys {what}: {', '.join(keys[:shown])}{more}."


class CheckpointStore:
    """The checkpoints of a run: the newest few to resume from, and the best.

    Args:
        folder: where they lie.
        keep: how many resumable ones to keep; None for all.
    """

    BEST = "checkpoint_best.pth"

    def __init__(self, folder: Path, keep: int | None = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, content: Mapping[str, Any], step: int) -> Path:
        """Write the state after optimizer step `step`; older ones beyond `keep` go once it is safe."""
        path = self.folder / f"checkpoint_{step:08d}.pth"
        save_atomically(content, path)
        self._clean()
        return path

    def save_best(self, content: Mapping[str, Any]) -> Path:
        """Write the weights to use."""
        path = self.folder / self.BEST
        save_atomically(content, path)
        return path

    @property
    def best(self) -> Path:
        """Where the best weights lie, if any were saved."""
        return self.folder / self.BEST

    def steps(self) -> list[Path]:
        """Return the resumable checkpoints, newest first."""
        return sorted(self.folder.glob("checkpoint_[0-9]*.pth"), reverse=True)

    def load_newest(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the newest checkpoint that is whole, with its path; say so of each that is not."""
        for path in self.steps():
            try:
                return path, load_file(path)
            except CheckpointError as error:
                logger.error("%s Trying the checkpoint before it.", error)
        return None

    def _clean(self) -> None:
        for leftover in self.folder.glob(".checkpoint_*.tmp"):
            if not leftover.name.endswith(f".{os.getpid()}.tmp"):
                leftover.unlink(missing_ok=True)
        if self.keep is not None:
            for old in self.steps()[max(1, self.keep) :]:
                old.unlink()
