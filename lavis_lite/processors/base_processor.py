"""What every processor is: a callable made from a `Config`."""

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
    """Turn one raw thing (an image, a caption) into what a model takes.

    A subclass declares its settings once, in a `Config` dataclass, and implements `__call__`.
    """

    @dataclass
    class Config:
        """No settings."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config if config is not None else self.Config()

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None = None) -> Self:
        """Build from a mapping of `Config` fields, as a yaml file holds it.

        A key `name`, with which data sets' yaml files say which processor they want, may be there.

        Raises:
            ConfigError: an unknown key, a value of the wrong type, or another processor's `name`.
        """
        settings = _plain(config if config is not None else {})
        if isinstance(settings, dict):
            cls._take_name(settings)
        return cls(parse(cls.Config, settings, where=cls.__name__))

    @classmethod
    def build(cls, **settings: Any) -> Self:
        """Build from keyword settings: ``BlipImageEvalProcessor.build(image_size=224)``."""
        return cls.from_config(settings)

    def __call__(self, item: Any) -> Any:
        """Return `item` processed."""
        raise NotImplementedError

    @classmethod
    def _take_name(cls, settings: dict[str, Any]) -> None:
        if "name" not in settings or "name" in {field.name for field in dataclasses.fields(cls.Config)}:
            return
        name = settings.pop("name")
        if registry.get_processor_class(name) is not cls:
            raise ConfigError(
                f"{cls.__name__}.name: is {name!r}, which is another processor; "
                f"load_processor({name!r}, config) builds that one."
            )


def _plain(value: Any) -> Any:
    """Replace OmegaConf's containers, at any depth, by dicts, lists and tuples."""
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
