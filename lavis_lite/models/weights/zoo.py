"""Models and their preprocessing by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import torch
from torch.overrides import TorchFunctionMode

from lavis_lite.common.checkpoint.store import CheckpointError
from lavis_lite.common.config.layering import model_defaults
from lavis_lite.common.config.shared_settings import with_shared_settings
from lavis_lite.common.registry import registry
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.models.base_model import BaseModel
from lavis_lite.models.weights.adapters.addresses import Weights, load_address

if TYPE_CHECKING:
    from lavis_lite.models.blip_models.blip_caption import BlipCaption
    from lavis_lite.models.blip_models.blip_classification import BlipClassification
    from lavis_lite.models.blip_models.blip_feature_extractor import BlipFeatureExtractor
    from lavis_lite.models.blip_models.blip_image_text_matching import BlipITM
    from lavis_lite.models.blip_models.blip_nlvr import BlipNLVR
    from lavis_lite.models.blip_models.blip_pretrain import BlipPretrain
    from lavis_lite.models.blip_models.blip_retrieval import BlipRetrieval
    from lavis_lite.models.blip_models.blip_vqa import BlipVQA

Processors = dict[str, Any]
M = TypeVar("M", bound=BaseModel)
WithProcessors = tuple[M, Processors, Processors]  # a model, its image and its text processors
SIZE_MARGIN = 200_000_000  # numbers; a model that large may be built whatever the size of its weights


# A model's class follows from its name, so that editors and type checkers know its methods.
@overload
def load_model(
    name: Literal["blip_caption"], model_type: str | None, *args: Any, **options: Any
) -> BlipCaption: ...
@overload
def load_model(
    name: Literal["blip_classification"], model_type: str | None, *args: Any, **options: Any
) -> BlipClassification: ...
@overload
def load_model(
    name: Literal["blip_feature_extractor"], model_type: str | None, *args: Any, **options: Any
) -> BlipFeatureExtractor: ...
@overload
def load_model(
    name: Literal["blip_image_text_matching"], model_type: str | None, *args: Any, **options: Any
) -> BlipITM: ...
@overload
def load_model(
    name: Literal["blip_nlvr"], model_type: str | None, *args: Any, **options: Any
) -> BlipNLVR: ...
@overload
def load_model(
    name: Literal["blip_pretrain"], model_type: str | None, *args: Any, **options: Any
) -> BlipPretrain: ...
@overload
def load_model(
    name: Literal["blip_retrieval"], model_type: str | None, *args: Any, **options: Any
) -> BlipRetrieval: ...
@overload
def load_model(name: Literal["blip_vqa"], model_type: str | None, *args: Any, **options: Any) -> BlipVQA: ...
@overload
def load_model(
    name: str,
    model_type: str | None,
    is_eval: bool = False,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    trust_imports: bool = False,
    **overrides: Any,
) -> BaseModel: ...
def load_model(
    name: str,
    model_type: str | None,
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


@overload
def load_model_and_preprocess(
    name: Literal["blip_caption"], *args: Any, **options: Any
) -> WithProcessors[BlipCaption]: ...
@overload
def load_model_and_preprocess(
    name: Literal["blip_classification"], *args: Any, **options: Any
) -> WithProcessors[BlipClassification]: ...
@overload
def load_model_and_preprocess(
    name: Literal["blip_feature_extractor"], *args: Any, **options: Any
) -> WithProcessors[BlipFeatureExtractor]: ...
@overload
def load_model_and_preprocess(
    name: Literal["blip_image_text_matching"], *args: Any, **options: Any
) -> WithProcessors[BlipITM]: ...
@overload
def load_model_and_preprocess(
    name: Literal["blip_nlvr"], *args: Any, **options: Any
) -> WithProcessors[BlipNLVR]: ...
@overload
def load_model_and_preprocess(
    name: Literal["blip_pretrain"], *args: Any, **options: Any
) -> WithProcessors[BlipPretrain]: ...
@overload
def load_model_and_preprocess(
    name: Literal["blip_retrieval"], *args: Any, **options: Any
) -> WithProcessors[BlipRetrieval]: ...
@overload
def load_model_and_preprocess(
    name: Literal["blip_vqa"], *args: Any, **options: Any
) -> WithProcessors[BlipVQA]: ...
@overload
def load_model_and_preprocess(
    name: str,
    model_type: str | None,
    is_eval: bool = False,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    trust_imports: bool = False,
    **overrides: Any,
) -> WithProcessors[BaseModel]: ...
def load_model_and_preprocess(
    name: str,
    model_type: str | None,
    is_eval: bool = False,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    trust_imports: bool = False,
    **overrides: Any,
) -> WithProcessors[BaseModel]:
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
    model_type: str | None,
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
    return model, with_shared_settings(config, model_class, model.config)


def _refuse_much_larger_model(
    weights: Weights, model_class: type[BaseModel], settings: Mapping[str, Any]
) -> None:
    """Refuse settings of a model far larger than its weights, before allocating memory for it.

    Raises:
        CheckpointError: the settings, which may come from an untrusted folder, describe a larger model.
    """
    state_dict = build_on_meta(model_class, settings).state_dict()
    described = sum(tensor.numel() for tensor in state_dict.values())
    stored = sum(tensor.numel() for tensor in weights.checkpoint["model"].values())
    if described > SIZE_MARGIN + 4 * stored:  # momentum copies and heads may be missing in the weights
        raise CheckpointError(
            f"{weights.source}: holds {stored:,} numbers, but the settings beside it describe a model of "
            f"{described:,}."
        )


class _SkipInitialization(TorchFunctionMode):
    """Skip the operations of initialization: on the meta device they are slow and have no effect."""

    FUNCTIONS = frozenset(
        ("normal_", "uniform_", "trunc_normal_", "erfinv_", "clamp_", "mul_", "add_", "fill_", "zero_")
    )

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if args and getattr(func, "__name__", "") in self.FUNCTIONS:
            return args[0]
        return func(*args, **(kwargs or {}))


def build_on_meta(model_class: type[BaseModel], settings: Mapping[str, Any]) -> BaseModel:
    """Return a model without memory for its weights, to see their names and shapes."""
    with torch.device("meta"), _SkipInitialization():
        return model_class.from_config(settings)


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
