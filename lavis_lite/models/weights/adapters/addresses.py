"""Weights by address: a file, a URL, a folder or hub repository of transformers."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from lavis_lite.common.checkpoint.formats import other_folder
from lavis_lite.common.checkpoint.store import CheckpointError, load_weights
from lavis_lite.common.storage.cache import AddressError, fetch, local_path
from lavis_lite.models.layers.vit import NAMED_SIZES, VisionSizes
from lavis_lite.models.weights.adapters.published import same_weights
from lavis_lite.models.weights.adapters.transformers_folder import (
    is_transformers_folder,
    read_transformers_folder,
)
from lavis_lite.models.weights.hub import PREFIX, HubError, hub_snapshot, is_hub_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """Weights read from an address.

    Attributes:
        checkpoint: weights under our names at "model", with the other content of the file beside it.
        source: the address.
        settings: fields of a model's `Config` that the weights were made for; empty if unknown.
    """

    checkpoint: dict[str, Any]
    source: str
    settings: dict[str, Any] = field(default_factory=dict)

    def check_heads(self, vision_heads: int, text_heads: int) -> None:
        """Compare the numbers of attention heads, which the shapes of weights do not show.

        Raises:
            CheckpointError: the weights were made for other numbers, and would compute something else.
        """
        if not self.settings:
            return
        vision = self.settings["vit_type"]
        sizes = NAMED_SIZES[vision] if isinstance(vision, str) else VisionSizes(**vision)
        text_config = self.settings["med_config"]
        for name, trained, configured in (
            ("vit_type.num_heads", sizes.num_heads, vision_heads),
            ("med_config.num_attention_heads", text_config["num_attention_heads"], text_heads),
        ):
            if trained != configured:
                raise CheckpointError(
                    f"{self.source}: the weights were made for {trained} heads, but model.{name} is "
                    f"{configured}; set it to {trained}."
                )


def load_address(address: str | Path, retries: int = 3) -> Weights:
    """Return the weights at `address`, or at another address known to hold the same if it is unavailable.

    Args:
        address: a path, an http(s) or file URL, a hub name ("owner/name", "hf://owner/name"), or a folder
            that transformers wrote.
        retries: further attempts after a broken connection.

    Raises:
        CheckpointError: no address is available, or the file is not a checkpoint.
    """
    return load_first([str(address), *same_weights(str(address))], retries)


def load_first(addresses: Sequence[str | Path], retries: int = 3) -> Weights:
    """Return the weights at the first available address, with a warning about the unavailable ones.

    An available but unusable file (a damaged one, say) is an error.

    Raises:
        CheckpointError: none is available, with all reasons; or the file is not a checkpoint.
    """
    failures: list[str] = []
    for address in addresses:
        try:
            path = _locate(address, retries)
        except OSError as error:
            message = str(error).strip().removesuffix(".")
            named = str(address).removeprefix(PREFIX) in message
            failures.append(f"{message}." if named else f"{address}: {message}.")
            continue
        if failures:
            logger.warning("Weights come from %s, because of this: %s", address, " ".join(failures))
        if path.is_dir():
            folder = read_transformers_folder(path)
            return Weights({"model": folder.state_dict}, str(address), folder.settings)
        return Weights(load_weights(path), str(address))
    raise CheckpointError("No weights. " + " ".join(failures))


def _locate(address: str | Path, retries: int) -> Path:
    """Return the file or folder on this machine, downloaded if necessary."""
    if is_hub_name(address):
        try:
            return hub_snapshot(str(address))
        except HubError as error:
            path = Path(address)
            if str(address).startswith(PREFIX) or not (path.parent.exists() or _nearest_path(path)):
                raise
            raise HubError(f"{missing_path(path)} As the name of a hub repository: {error}") from error
    try:
        path = local_path(address)
    except AddressError:
        return fetch(address, retries=retries)
    except RuntimeError as error:  # no such user in ~user
        raise FileNotFoundError(f"{address}: {error}") from error
    if path.is_dir() and not is_transformers_folder(path):
        kind = other_folder(path) or "is neither the folder of a run nor one that transformers wrote"
        raise CheckpointError(f"{address}: this folder {kind}.")
    if not path.exists():
        raise FileNotFoundError(missing_path(path))
    return path


def missing_path(path: Path) -> str:
    """Describe that `path` does not exist, and which existing path is the nearest."""
    nearest = _nearest_path(path)
    if nearest is not None:
        return f"{path}: there is no such file or folder; did you mean {nearest}?"
    existing = _existing_parent(path)
    reason = "holds nothing of a similar name" if existing.is_dir() else "is a file"
    return f"{path}: there is no such file or folder; {existing.absolute()} {reason}."


def _nearest_path(path: Path) -> Path | None:
    """Return the existing path that differs from `path` in one similar name, or None."""
    existing = _existing_parent(path)
    wrong, *rest = path.parts[len(existing.parts) :]
    try:
        names = [child.name for child in islice(existing.iterdir(), 1000)]
    except OSError:
        return None
    candidates = (
        (existing / name).joinpath(*rest) for name in difflib.get_close_matches(wrong, names, n=3, cutoff=0.6)
    )
    return next((candidate for candidate in candidates if candidate.exists()), None)


def _existing_parent(path: Path) -> Path:
    return next((parent for parent in path.parents if parent.exists()), Path())
