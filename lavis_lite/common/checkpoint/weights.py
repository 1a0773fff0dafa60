"""State dicts: found in checkpoints, freed from wrappers' prefixes, loaded with every key accounted for."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite.common.checkpoint.file import CheckpointError, load_file

logger = logging.getLogger(__name__)

# Where training programs put the weights; an average of them is taken only where there is nothing else.
WEIGHT_KEYS = ("model", "state_dict", "model_state_dict", "weights", "net", "network", "module", "params")
AVERAGE_KEYS = ("model_ema", "ema", "state_dict_ema", "ema_state_dict", "averaged_model")
# Components that wrappers put into names: torch.compile, FSDP, activation checkpointing.
WRAPPER_COMPONENTS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")


def load_weights(url_or_filename: str | Path) -> dict[str, Any]:
    """Return a checkpoint as ``{"model": state_dict, ...}``, wherever in it the weights are.

    Raises:
        CheckpointError: it cannot be read, or it does not say which weights in it are meant.
    """
    from lavis_lite.common.storage.cache import AddressError, fetch, local_path

    try:
        path = local_path(url_or_filename)
    except AddressError:
        try:
            path = fetch(str(url_or_filename))
        except OSError as error:
            raise CheckpointError(f"no weights at {url_or_filename}: {error}") from error
    content = load_file(path)
    if _is_state_dict(content):
        return {"model": content}
    keys, weights = _find_weights(content, str(url_or_filename))
    rest = {key: value for key, value in content.items() if key != keys[0]}
    if keys != ["model"]:
        logger.info("%s: took the weights under %r.", url_or_filename, ".".join(keys))
    return {**rest, "model": weights}


def _find_weights(content: Any, source: str) -> tuple[list[str], Mapping[str, Tensor]]:
    """Return the keys that lead to the weights, and the weights."""
    keys: list[str] = []
    while not _is_state_dict(content):
        if not isinstance(content, Mapping):
            raise _no_weights(content, source)
        candidates = [
            key for key in (*WEIGHT_KEYS, *AVERAGE_KEYS) if isinstance(content.get(key), Mapping | nn.Module)
        ]
        online = [key for key in candidates if key in WEIGHT_KEYS]
        if not candidates or (len(online) > 1 and "model" not in online):
            raise _no_weights(content, source)
        if len(candidates) > 1:
            others = ", ".join(map(repr, candidates[1:]))
            logger.warning("%s: took %r; the file also holds %s.", source, candidates[0], others)
        keys.append(candidates[0])
        content = content[candidates[0]]
    return keys, content


def _is_state_dict(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def _no_weights(content: Any, source: str) -> CheckpointError:
    if not isinstance(content, Mapping):
        return CheckpointError(
            f"{source}: holds no weights but a {type(content).__name__}; expected a state dict, or one under "
            "'model'."
        )
    tensors = sum(isinstance(value, Tensor) for value in content.values())
    if tensors:
        others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
        named = ", ".join(map(repr, others[:8]))
        return CheckpointError(
            f"{source}: {tensors} weights stand beside {len(others)} entries that are no tensors ({named}); "
            "save only the weights."
        )
    holds = ", ".join(f"{key!r} ({_size(value)})" for key, value in list(content.items())[:12])
    more = f" and {len(content) - 12} more" if len(content) > 12 else ""
    example = next((key for key, value in content.items() if _is_state_dict(value)), None)
    way_out = (
        "expected a state dict, or one under 'model'."
        if example is None
        else "it does not say which weights are meant; take them out, for example with "
        f"torch.save(torch.load(PATH, weights_only=True)[{example!r}], NEW_PATH)."
    )
    return CheckpointError(
        f"{source}: holds no weights where they are looked for, but {holds or 'nothing'}{more}; {way_out}"
    )


def _size(value: Any) -> str:
    if _is_state_dict(value):
        return f"{len(value)} tensors"
    if isinstance(value, Tensor):
        return f"tensor {tuple(value.shape)}"
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, Mapping) else type(value).__name__


def without_wrappers(
    state_dict: Mapping[str, Tensor], own: Collection[str], source: str
) -> Mapping[str, Tensor]:
    """Return `state_dict` under the names of the plain module.

    DistributedDataParallel, torch.compile, FSDP and Lightning prepend to every name, or put components of
    their own into it. A prefix goes only where every key has it and the module has none that does.

    Args:
        own: the keys of the module to load into.
        source: the file, as messages name it.

    Raises:
        CheckpointError: without the wrappers two keys have one name.
    """
    renamed = {key: _without_components(key, own) for key in state_dict}
    prefix = ""
    while len({name.split(".", 1)[0] for name in renamed.values()}) == 1:
        first = next(iter(renamed.values())).split(".", 1)[0] + "."
        if not all(name.startswith(first) for name in renamed.values()):
            break
        if any(key.startswith(first) for key in own):
            break
        prefix += first
        renamed = {key: name.removeprefix(first) for key, name in renamed.items()}
    if prefix and not any(name in own for name in renamed.values()):
        return state_dict  # nothing of it is ours, with or without the prefix
    if len(set(renamed.values())) < len(renamed):
        raise CheckpointError(f"{source}: holds two weights of one name once wrappers' prefixes are removed.")
    if prefix:
        logger.info("%s: removed the prefix %r from all %d keys.", source, prefix, len(renamed))
    return {renamed[key]: tensor for key, tensor in state_dict.items()}


def _without_components(key: str, own: Collection[str]) -> str:
    if key in own:
        return key
    return ".".join(component for component in key.split(".") if component not in WRAPPER_COMPONENTS)


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
        CheckpointError: keys that are missing, unexpected, of another shape or kind of number, or whose
            values are not finite; all are named.
    """
    own = module.state_dict()
    # A buffer that holds no knowledge may be missing (position_ids is, in newer files).
    derived = {key for key in own if key.endswith("position_ids")}
    missing = sorted(own.keys() - state_dict.keys() - derived)
    started_fresh = [key for key in missing if key.startswith(tuple(fresh))]
    missing = [key for key in missing if key not in started_fresh]
    unexpected = sorted(key for key in state_dict.keys() - own.keys() if not key.startswith(tuple(unneeded)))
    shared = sorted(own.keys() & state_dict.keys())
    shapes = [
        f"{key} {tuple(state_dict[key].shape)}, needed {tuple(own[key].shape)}"
        for key in shared
        if state_dict[key].shape != own[key].shape
    ]
    kinds = [
        f"{key} {_kind(state_dict[key])}, needed {_kind(own[key])}"
        for key in shared
        if not _holds_same_kind(state_dict[key], own[key])
    ]
    complaints = [
        _complaint("missing", missing),
        _complaint("unexpected", unexpected),
        _complaint("of another shape", shapes),
        _complaint("of another kind of number", kinds),
    ]
    if not any(complaints):
        complaints.append(
            _complaint("hold NaN or infinity", [key for key in shared if not _is_finite(state_dict[key])])
        )
    if any(complaints):
        raise CheckpointError(
            f"{source}: the weights do not fit {type(module).__name__}. " + " ".join(filter(None, complaints))
        )
    module.load_state_dict({key: state_dict[key] for key in own if key in state_dict}, strict=False)
    if started_fresh:
        logger.info("%s: %s", source, _complaint("are not there and start anew", started_fresh))


def _holds_same_kind(tensor: Tensor, own: Tensor) -> bool:
    """Return whether both are floats, or neither is; quantized and sparse weights are no plain numbers."""
    if tensor.is_quantized or tensor.is_sparse or tensor.layout != torch.strided:
        return False
    return tensor.is_meta == own.is_meta and (
        (tensor.is_floating_point(), tensor.is_complex()) == (own.is_floating_point(), own.is_complex())
    )


def _kind(tensor: Tensor) -> str:
    layout = "" if tensor.layout == torch.strided else f" {tensor.layout}"
    return f"{tensor.dtype}{layout}{' without data' if tensor.is_meta else ''}".replace("torch.", "")


def _is_finite(tensor: Tensor) -> bool:
    return tensor.is_meta or not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _complaint(what: str, keys: list[str], shown: int = 8) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return f"{len(keys)} keys {what}: {', '.join(keys[:shown])}{more}."
