"""Reading the folders that transformers' `save_pretrained` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lavis_lite.common.checkpoint.formats import other_folder
from lavis_lite.common.checkpoint.store import CheckpointError, load_file
from lavis_lite.common.files import FileError, first_line, read_json
from lavis_lite.models.layers.vit import NAMED_SIZES, VisionSizes
from lavis_lite.models.weights.adapters.transformers import (
    CLASS_NAMES,
    Kind,
    StateDict,
    from_transformers,
    kind_of,
)
from lavis_lite.models.weights.hub import has_vocabulary

_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # in order of preference
# Fields of `VisionSizes` -> keys of a vision_config.
VISION_KEYS = {
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "patch_size": "patch_size",
}
# The keys that a text_config shares with our `TextConfig`, without dropout and initialization: they are no
# property of weights, and the published folders hold defaults that BLIP was not trained with.
TEXT_KEYS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "vocab_size",
    "pad_token_id",
    "hidden_act",
)


@dataclass(frozen=True)
class TransformersFolder:
    """Content of a folder, converted to our names.

    Attributes:
        kind: caption, vqa or itm.
        state_dict: weights under our names.
        settings: fields of a model's `Config` that these weights were made for.
    """

    kind: Kind
    state_dict: StateDict
    settings: dict[str, Any]


def is_transformers_folder(path: str | Path) -> bool:
    """Return whether `path` is a folder with a config.json."""
    return (Path(path).expanduser() / "config.json").is_file()


def read_transformers_folder(folder: str | Path) -> TransformersFolder:
    """Read a folder that `save_pretrained` of one of transformers' BLIP classes wrote, sharded or not.

    Raises:
        CheckpointError: no such folder, another kind of model, or a damaged file.
    """
    folder = Path(folder).expanduser()
    config, class_name = _read_config(folder / "config.json")
    state_dict = from_transformers(_read_weights(folder))
    kinds = {name: kind for kind, name in CLASS_NAMES.items()}
    try:
        kind = kinds[class_name] if class_name else kind_of(state_dict)
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    settings = _settings(config, where=folder / "config.json")
    if has_vocabulary(folder):
        settings["tokenizer"] = str(folder)
    if kind == "itm":
        settings["embed_dim"] = config["image_text_hidden_size"]
    return TransformersFolder(kind, state_dict, settings)


def _read_config(path: Path) -> tuple[dict[str, Any], str | None]:
    """Return the config, with transformers' defaults for missing keys, and the name of the class."""
    from transformers import BlipConfig

    if not path.is_file():
        raise CheckpointError(f"{path.parent}: no config.json; not a folder that transformers wrote.")
    try:
        content = read_json(path)
    except FileError as error:
        raise CheckpointError(str(error)) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: is not the JSON of a config, but of a {type(content).__name__}.")
    model_type, classes = content.get("model_type"), content.get("architectures") or [None]
    class_name = classes[0] if isinstance(classes, list) else classes
    if model_type != "blip" or class_name not in (None, *CLASS_NAMES.values()):
        raise CheckpointError(
            f"{path}: describes {class_name or 'a model'} of type {model_type!r}; only BLIP's "
            f"{', '.join(CLASS_NAMES.values())} can be read."
        )
    try:
        return BlipConfig.from_dict(content).to_dict(), class_name
    except Exception as error:  # transformers and the hub's dataclasses raise errors of their own
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: transformers refuses it ({reason}).") from error


def _settings(config: Mapping[str, Any], where: Path) -> dict[str, Any]:
    vision, text = config["vision_config"], config["text_config"]
    if vision["intermediate_size"] != 4 * vision["hidden_size"]:
        raise CheckpointError(
            f"{where}: vision_config.intermediate_size is {vision['intermediate_size']}; BLIP's is 4 times "
            f"hidden_size, {4 * vision['hidden_size']}."
        )
    if {vision["hidden_act"], text["hidden_act"]} != {"gelu"}:
        raise CheckpointError(
            f"{where}: hidden_act is {vision['hidden_act']!r} and {text['hidden_act']!r}; BLIP's is 'gelu'."
        )
    if not (isinstance(vision["image_size"], int) and isinstance(vision["patch_size"], int)):
        raise CheckpointError(
            f"{where}: images and patches must be squares, image_size and patch_size numbers."
        )
    sizes = VisionSizes(**{field: vision[key] for field, key in VISION_KEYS.items()})
    names = [name for name, named_sizes in NAMED_SIZES.items() if named_sizes == sizes]
    return {
        "vit_type": names[0] if names else asdict(sizes),
        "image_size": vision["image_size"],
        "vit_layer_norm_epsilon": vision["layer_norm_eps"],
        "med_config": {key: text[key] for key in TEXT_KEYS},
    }


def _read_weights(folder: Path) -> StateDict:
    for name in _WEIGHT_FILES:
        if (folder / name).is_file():
            return _read_file(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _read_shards(index)
    other = other_folder(folder)
    raise CheckpointError(
        f"{folder}: no weights; expected one of {', '.join(_WEIGHT_FILES)}, or its index"
        + (f". The folder {other}." if other else ".")
    )


def _read_file(path: Path) -> StateDict:
    content = load_file(path)
    if not (isinstance(content, Mapping) and all(isinstance(value, Tensor) for value in content.values())):
        raise CheckpointError(f"{path}: holds no state dict.")
    return dict(content)


def _read_shards(index: Path) -> StateDict:
    try:
        shard_of = read_json(index)["weight_map"]
        shards = sorted(set(shard_of.values()))
        if not shards or not all(isinstance(shard, str) for shard in shards):
            raise TypeError("weight_map does not map weights to files")
    except (FileError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: is not an index of shards ({first_line(error)}).") from error
    state_dict: StateDict = {}
    for shard in shards:
        if Path(shard).name != shard:
            raise CheckpointError(f"{index}: names {shard!r}, which is no file beside it.")
        state_dict |= _read_file(index.parent / shard)
    absent = sorted(shard_of.keys() - state_dict.keys())
    if absent:
        raise CheckpointError(f"{index}: its shards lack {len(absent)} of its weights, {absent[0]} for one.")
    return state_dict
