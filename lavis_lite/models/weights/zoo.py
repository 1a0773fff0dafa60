"""Models and their preprocessing by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lavis_lite.common.checkpoint.store import CheckpointError
from lavis_lite.common.config.layering import model_defaults, with_shared_settings
from lavis_lite.common.registry import registry
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.models.base_model import BaseModel
from lavis_lite.models.weights.adapters.addresses import Weights, load_address

Processors = dict[str, Any]
SIZE_MARGIN = 200_000_000  # numbers; a model that large may be built whatever the size of its weights


def load_model(
    name: str,
    model_type: str,
    is_eval: bool = False,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    trust_imports: bool = False,
    **overrides: Any,
) -> BaseModel:
    """Return the model called `name` of type `model_type`, with its published weights.

    Args:
        is_eval: switch it to evaluation.
        checkpoint: a weights file, a URL, a hub name, or the folder of a run or of transformers, instead of
            the published weights. A folder also brings its model settings and tokenizer, that of a run
            also its generation settings.
        trust_imports: import the modules named in the config of a run folder, which runs their code.
            Otherwise they must have been imported before.
        overrides: any keys of the model's config: ``vit_type={...}, tokenizer="dir"``.

    Raises:
        UnknownNameError: no such model or type; the message names the nearest.
        ConfigError: an override that is not a key of the model, or has the wrong type; or a run folder
            with modules that are neither imported nor trusted.
        CheckpointError: the weights do not fit.

    Example:
        >>> load_model("blip_caption", "tiny").show_n_params()
        '...'
    """
    model, _ = _build(name, model_type, checkpoint, trust_imports, overrides)
    return model.eval().to(device) if is_eval else model.to(device)


def load_preprocess(config: Mapping[str, Any]) -> tuple[Processors, Processors]:
    """Return the image and text processors, {"train", "eval"} each, of a ``preprocess`` section."""
    return _processors(config.get("vis_processor")), _processors(config.get("text_processor"))


def _processors(section: Mapping[str, Any] | None) -> Processors:
    processors: Processors = {}
    for split in ("train", "eval"):
        settings = dict((section or {}).get(split) or {})
        name = settings.pop("name", None)
        processors[split] = registry.get_processor_class(name).from_config(settings) if name else None
    return processors


def load_model_and_preprocess(
    name: str,
    model_type: str,
    is_eval: bool = False,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    trust_imports: bool = False,
    **overrides: Any,
) -> tuple[BaseModel, Processors, Processors]:
    """Return the model, its image processors and its text processors ({"train", "eval"} each).

    Arguments and errors are those of `load_model`.

    Example:
        >>> model, vis_processors, text_processors = load_model_and_preprocess("blip_caption", "tiny")
        >>> sorted(vis_processors)
        ['eval', 'train']
    """
    model, config = _build(name, model_type, checkpoint, trust_imports, overrides)
    vis_processors, text_processors = load_preprocess(config.get("preprocess") or {})
    model = model.eval().to(device) if is_eval else model.to(device)
    return model, vis_processors, text_processors


def _build(
    name: str,
    model_type: str,
    checkpoint: str | Path | None,
    trust_imports: bool,
    overrides: Mapping[str, Any],
) -> tuple[BaseModel, dict[str, Any]]:
    """Return the model and the config (sections ``model`` and ``preprocess``) it was built from."""
    run = RunFolder.at(checkpoint) if checkpoint is not None else None
    if run is not None:
        run.import_modules(trust_imports)
    model_class = registry.get_model_class(name)
    config = model_defaults(model_class, model_type)
    if checkpoint is None:
        settings = {**config["model"], **overrides}
        model = model_class.from_config(settings)
    else:
        if run is not None:
            config = run.model_config(expected_arch=name)
        weights = load_address(checkpoint if run is None else run.weights())
        settings = {**config["model"], **weights.settings, **overrides}
        settings.update(load_finetuned=False, load_pretrained=False)
        if (run is not None or weights.settings) and model_class.__module__.startswith("lavis_lite."):
            _refuse_much_larger_model(weights, model_class, settings)
        model = model_class.from_config(settings)
        model.load(weights)
    return model, with_shared_settings({**config, "model": settings}, model_class)


def _refuse_much_larger_model(
    weights: Weights, model_class: type[BaseModel], settings: Mapping[str, Any]
) -> None:
    """Refuse settings of a model far larger than its weights, before allocating memory for it.

    Raises:
        CheckpointError: the settings, which may come from an untrusted folder, describe a larger model.
    """
    with torch.device("meta"):
        described = sum(tensor.numel() for tensor in model_class.from_config(settings).state_dict().values())
    stored = sum(tensor.numel() for tensor in weights.checkpoint["model"].values())
    if described > SIZE_MARGIN + 4 * stored:  # momentum copies and heads may be missing in the weights
        raise CheckpointError(
            f"{weights.source}: holds {stored:,} numbers, but the settings beside it describe a model of "
            f"{described:,}."
        )


class ModelZoo:
    """The names and types of all models; printing it shows a table."""

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        for name in registry.list_models():
            yield name, list(registry.get_model_class(name).default_configs)

    def __len__(self) -> int:
        return sum(len(types) for _, types in self)

    def __str__(self) -> str:
        rows = [("Architectures", "Types"), *((name, ", ".join(types)) for name, types in self)]
        width = max(len(name) for name, _ in rows) + 2
        return "\n".join(f"{name:<{width}}{types}" for name, types in rows)


model_zoo = ModelZoo()
