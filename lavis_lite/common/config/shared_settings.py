"""Settings that the processors of a data set share with the model, such as the image size."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from lavis_lite.common.registry import registry

if TYPE_CHECKING:
    from lavis_lite.models.base_model import BaseModel

PROCESSORS = ("vis_processor", "text_processor")


def with_shared_settings(
    sections: Mapping[str, Any], model_class: type[BaseModel], model: BaseModel.Config
) -> dict[str, Any]:
    """Return a copy of `sections` whose processors take from the model what both share, as the image size."""
    shared = copy.deepcopy(dict(sections))
    for owner in (shared.get("preprocess"), *(shared.get("datasets") or {}).values()):
        for _, settings, key, value in _shared_settings(owner, model_class, model):
            if _takes(settings.get("name"), key):
                settings.setdefault(key, value)
    return shared


def _shared_settings(
    owner: Any, model_class: type[BaseModel], model: BaseModel.Config
) -> Iterator[tuple[str, dict[str, Any], str, Any]]:
    """Yield key path, processor settings, key and the model's value of each shared setting."""
    for kind, split, settings in processors_of(owner):
        for key in model_class.shared_settings.get((kind, split), ()):
            value = getattr(model, key, None)
            if value not in (None, ""):
                yield f"{kind}.{split}.{key}", settings, key, value


def disagreements(
    sections: Mapping[str, Any], model_class: type[BaseModel], model: BaseModel.Config
) -> Iterator[tuple[str, str]]:
    """Yield (key path, error) for each processor of a data set that has another value than the model."""
    for name, dataset in sections["datasets"].items():
        for key_path, settings, key, expected in _shared_settings(dataset, model_class, model):
            if settings.get(key) not in (None, expected):
                path = f"datasets.{name}.{key_path}"
                error = (
                    f"{path} is {settings[key]!r} but model.{key} is {expected!r}; they must agree. "
                    f"Leave {key} out of the processor to take the model's."
                )
                yield path, error


def processors_of(owner: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (kind, split, settings) of each processor of a data set or of ``preprocess``."""
    for kind in PROCESSORS:
        splits = owner.get(kind) if isinstance(owner, dict) else None
        for split, settings in splits.items() if isinstance(splits, dict) else ():
            if settings is None or isinstance(settings, dict):
                yield kind, split, settings or {}


def _takes(processor_name: str | None, key: str) -> bool:
    """Return True where the processor has a setting called `key`."""
    if processor_name not in registry.list_processors():
        return False
    return key in {field.name for field in fields(registry.get_processor_class(processor_name).Config)}
