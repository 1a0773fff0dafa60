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

# Where training programs store the weights; an average of them is used only if there is nothing else.
WEIGHT_KEYS = ("model", "state_dict", "model_state_dict", "weights", "net", "network", "module", "params")
AVERAGE_KEYS = ("model_ema", "ema", "state_dict_ema", "ema_state_dict", "averaged_model")
# Components that wrappers insert into names: torch.compile, FSDP, activation checkpointing.
WRAPPER_COMPONENTS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")


def load_weights(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint as ``{"model": state_dict, ...}``, under whichever keys it holds the weights.

    Raises:
        CheckpointError: it cannot be read, or it is ambiguous which weights in it are meant.
    """
    content = load_file(path)
    if _is_state_dict(content):
        return {"model": content}
    keys, weights = _find_weights(content, str(path))
    if keys != ["model"]:
        logger.info("%s: took the weights under %r.", path, ".".join(keys))
    return {**{key: value for key, value in content.items() if key != keys[0]}, "model": weights}


def _find_weights(content: Any, source: str) -> tuple[list[str], Mapping[str, Tensor]]:
    """Return the keys that lead to the weights, and the weights."""
    keys: list[str] = []
    while not _is_state_dict(content):
        if not isinstance(content, Mapping):
            raise _no_weights(content, source)
        candidates = [
            key for key in (*WEIGHT_KEYS, *AVERAGE_KEYS) if isinstance(content.get(key), Mapping | nn.Module)
        ]
        ambiguous = len(set(candidates).intersection(WEIGHT_KEYS)) > 1 and "model" not in candidates
        if not candidates or ambiguous:
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
    others = [repr(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if tensors := len(content) - len(others):
        return CheckpointError(
            f"{source}: {tensors} weights stand beside {len(others)} entries that are no tensors "
            f"({', '.join(others[:8])}); save only the weights."
        )
    holds = ", ".join(f"{key!r} ({_size(value)})" for key, value in list(content.items())[:12])
    more = f" and {len(content) - 12} more" if len(content) > 12 else ""
    example = next((key for key, value in content.items() if _is_state_dict(value)), None)
    advice = (
        "expected a state dict, or one under 'model'."
        if example is None
        else "it does not say which weights are meant; extract them, for example with "
        f"torch.save(torch.load(PATH, weights_only=True)[{example!r}], NEW_PATH)."
    )
    return CheckpointError(
        f"{source}: holds no weights where they are looked for, but {holds or 'nothing'}{more}; {advice}"
    )


def _size(value: Any) -> str:
    if _is_state_dict(value):
        return f"{len(value)} tensors"
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, Mapping) else type(value).__name__


def without_wrappers(
    state_dict: Mapping[str, Tensor], own: Collection[str], source: str
) -> Mapping[str, Tensor]:
    """Return `state_dict` under the names of the plain module.

    DistributedDataParallel, torch.compile, FSDP and Lightning prepend a prefix to every name, or insert
    components. A prefix is removed only if all keys have it and none of the module's has.

    Args:
        own: the keys of the module to load into.
        source: the file, as messages name it.

    Raises:
        CheckpointError: two keys have the same name once the wrappers' parts are removed.
    """
    renamed = {key: _without_components(key, own) for key in state_dict}
    prefix = ""
    while len({name.split(".", 1)[0] for name in renamed.values()}) == 1:
        first = next(iter(renamed.values())).split(".", 1)[0] + "."
        if any(key.startswith(first) for key in own) or not all(
            name.startswith(first) for name in renamed.values()
        ):
            break
        prefix += first
        renamed = {key: name.removeprefix(first) for key, name in renamed.items()}
    if prefix and not any(name in own for name in renamed.values()):
        return state_dict  # none of these weights is the module's, with or without the prefix
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
    """Load `state_dict` into `module` with every key accounted for.

    Args:
        unneeded: prefixes of keys that are ignored if the module has no such part.
        fresh: prefixes of keys that may be missing: these weights stay as they are.

    Raises:
        CheckpointError: keys that are missing, unexpected, of another shape or type of number, or whose
            values are not finite; all are named.
    """
    own = module.state_dict()
    # A buffer without learned values may be missing (position_ids is, in newer files).
    missing = sorted(key for key in own.keys() - state_dict.keys() if not key.endswith("position_ids"))
    initialized = [key for key in missing if key.startswith(tuple(fresh))]
    pairs = {key: (state_dict[key], own[key]) for key in sorted(own.keys() & state_dict.keys())}
    errors = {
        "missing": [key for key in missing if key not in initialized],
        "unexpected": sorted(
            key for key in state_dict.keys() - own.keys() if not key.startswith(tuple(unneeded))
        ),
        "of another shape": [
            f"{key} {tuple(tensor.shape)}, needed {tuple(needed.shape)}"
            for key, (tensor, needed) in pairs.items()
            if tensor.shape != needed.shape
        ],
        "of another kind of number": [
            f"{key} {_number_type(tensor)}, needed {_number_type(needed)}"
            for key, (tensor, needed) in pairs.items()
            if not _has_same_number_type(tensor, needed)
        ],
    }
    if not any(errors.values()):
        errors = {
            "hold NaN or infinity": [key for key, (tensor, _) in pairs.items() if not _is_finite(tensor)]
        }
    if any(errors.values()):
        raise CheckpointError(
            f"{source}: the weights do not fit {type(module).__name__}. "
            + " ".join(_list_keys(what, keys) for what, keys in errors.items() if keys)
        )
    module.load_state_dict({key: state_dict[key] for key in own if key in state_dict}, strict=False)
    if initialized:
        logger.info("%s: %s", source, _list_keys("missing, left as initialized", initialized))


def _has_same_number_type(tensor: Tensor, needed: Tensor) -> bool:
    """Return whether both are floats, or neither is; quantized and sparse tensors never match."""
    if tensor.is_quantized or tensor.layout != torch.strided or tensor.is_meta != needed.is_meta:
        return False
    return (tensor.is_floating_point(), tensor.is_complex()) == (
        needed.is_floating_point(),
        needed.is_complex(),
    )


def _number_type(tensor: Tensor) -> str:
    layout = "" if tensor.layout == torch.strided else f" {tensor.layout}"
    return f"{tensor.dtype}{layout}{' without data' if tensor.is_meta else ''}".replace("torch.", "")


def _is_finite(tensor: Tensor) -> bool:
    return tensor.is_meta or not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _list_keys(what: str, keys: list[str], shown: int = 8) -> str:
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return f"{len(keys)} keys {what}: {', '.join(keys[:shown])}{more}."
