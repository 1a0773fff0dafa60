"""Weights from wherever they are: a file, a URL, a folder or hub repository of transformers."""

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
    """What an address gave.

    Attributes:
        checkpoint: weights under our names at "model"; what else the file holds beside it.
        source: the address that gave it.
        settings: fields of a model's `Config` that the weights were made for; empty if nothing says.
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
        made_for = {
            "vit_type.num_heads": sizes.num_heads,
            "med_config.num_attention_heads": self.settings["med_config"]["num_attention_heads"],
        }
        given = dict(zip(made_for, (vision_heads, text_heads), strict=True))
        for name, heads in made_for.items():
            if heads != given[name]:
                raise CheckpointError(
                    f"{self.source}: the weights were made for {heads} heads, but model.{name} is "
                    f"{given[name]}; set it to {heads}."
                )


def load_address(address: str | Path, retries: int = 3) -> Weights:
    """Return the weights at `address`, or, if that cannot be had, at another one known to hold the same.

    Args:
        address: a path, an http(s) or file URL, a hub name ("owner/name", "hf://owner/name"), or a folder
            that transformers wrote.
        retries: further attempts after a broken connection.

    Raises:
        CheckpointError: it cannot be had, or is no checkpoint.
    """
    return load_first([str(address), *same_weights(str(address))], retries)


def load_first(addresses: Sequence[str | Path], retries: int = 3) -> Weights:
    """Return the weights at the first of `addresses` that can be had; a later one is taken with a warning.

    What can be had but not used (a damaged file, say) is an error, not passed over.

    Raises:
        CheckpointError: none can be had, each with its reason; or one is no checkpoint.
    """
    failures: list[str] = []
    for address in addresses:
        try:
            place = _locate(address, retries)
        except OSError as error:
            failures.append(_reason(address, error))
            continue
        if failures:
            logger.warning("Weights come from %s, because of this: %s", address, " ".join(failures))
        return _load(place, str(address))
    raise CheckpointError("No weights. " + " ".join(failures))


def _locate(address: str | Path, retries: int) -> Path:
    """Return the file or folder on this machine."""
    if is_hub_name(address):
        try:
            return hub_snapshot(str(address))
        except HubError as error:
            path = Path(address)
            if _is_explicit(address) or not (path.parent.exists() or _nearest_path(path)):
                raise
            raise HubError(f"{missing_path(path)} As the name of a hub repository: {error}") from error
    try:
        path = local_path(address)
    except AddressError:  # not a path, and nothing that `fetch` does not name better
        return fetch(address, retries=retries)
    except RuntimeError as error:
        raise FileNotFoundError(f"{address}: {error}") from error
    if path.is_dir() and not is_transformers_folder(path):
        raise CheckpointError(f"{address}: this folder {_folder_kind(path)}.")
    if not path.exists():
        raise FileNotFoundError(missing_path(path))
    return path


def _is_explicit(address: str | Path) -> bool:
    return str(address).startswith(PREFIX)


def _folder_kind(folder: Path) -> str:
    return other_folder(folder) or "is neither the folder of a run nor one that transformers wrote"


def missing_path(path: Path) -> str:
    """Say that nothing is at `path`, and which existing path is the nearest."""
    nearest = _nearest_path(path)
    if nearest is not None:
        return f"{path}: there is no such file or folder; did you mean {nearest}?"
    existing = next((parent for parent in path.parents if parent.exists()), Path())
    reason = "holds nothing of a similar name" if existing.is_dir() else "is a file"
    return f"{path}: there is no such file or folder; {existing.absolute()} {reason}."


def _nearest_path(path: Path) -> Path | None:
    """Return the existing path whose name is the nearest to the first part of `path` that does not exist."""
    existing = next((parent for parent in path.parents if parent.exists()), Path())
    wrong, *rest = path.parts[len(existing.parts) :]
    try:
        names = [child.name for child in islice(existing.iterdir(), 1000)]
    except OSError:
        return None
    for name in difflib.get_close_matches(wrong, names, n=3, cutoff=0.6):
        if (whole := (existing / name).joinpath(*rest)).exists():
            return whole
    return None


def _load(place: Path, address: str) -> Weights:
    if place.is_dir():
        read = read_transformers_folder(place)
        return Weights({"model": read.state_dict}, address, read.settings)
    return Weights(load_weights(place), address)


def _reason(address: str | Path, error: OSError) -> str:
    message = str(error).strip()
    named = message if str(address).removeprefix("hf://") in message else f"{address}: {message}"
    return named if named.endswith(".") else named + "."
