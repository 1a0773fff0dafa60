"""The base class of processors: callables that are built from a `Config`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from lavis_lite.common.config.schema import ConfigError, parse
from lavis_lite.common.registry import registry

if TYPE_CHECKING:
    from typing_extensions import Self


class BaseProcessor:
    """Prepares one item, such as an image or a caption, for a model.

    A subclass declares its settings in a `Config` dataclass and implements `__call__`.
    """

    @dataclass
    class Config:
        """No settings."""

    # Any, because the `Config` of a subclass need not extend this one.
    config: Any

    def __init__(self, config: Any = None) -> None:
        self.config = config if config is not None else self.Config()

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None = None) -> Self:
        """Build from a mapping of `Config` fields, as in a yaml file; it may have the processor's `name`.

        Raises:
            ConfigError: an unknown key, a value of the wrong type, or another processor's `name`.
        """
        settings = _plain(config if config is not None else {})
        if isinstance(settings, dict):
            cls._remove_name(settings)
        return cls(parse(cls.Config, settings, where=cls.__name__))

    @classmethod
    def build(cls, **settings: Any) -> Self:
        """Build from keyword settings: ``BlipImageEvalProcessor.build(image_size=224)``."""
        return cls.from_config(settings)

    def __call__(self, item: Any) -> Any:
        """Return `item` processed."""
        raise NotImplementedError

    @classmethod
    def _remove_name(cls, settings: dict[str, Any]) -> None:
        if "name" not in settings or "name" in {field.name for field in dataclasses.fields(cls.Config)}:
            return
        name = settings.pop("name")
        if registry.get_processor_class(name) is not cls:
            raise ConfigError(
                f"{cls.__name__}.name: is {name!r}, which is another processor; "
                f"load_processor({name!r}, config) builds that one."
            )


def _plain(value: Any) -> Any:
    """Replace OmegaConf's containers, at any depth, by plain ones."""
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
