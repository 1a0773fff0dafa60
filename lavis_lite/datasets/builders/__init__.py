"""Data sets by name: ``load_dataset("coco_caption")``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch.utils.data import Dataset

from lavis_lite.common.config.layering import dataset_defaults, read_yaml
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import registry
from lavis_lite.datasets.builders import (  # noqa: F401 (registers them)
    caption,
    classification,
    custom,
    hf,
    nlvr,
    retrieval,
    video,
    vqa,
    web,
)
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder

__all__ = ["BaseDatasetBuilder", "dataset_zoo", "load_dataset"]


def load_dataset(
    name: str, cfg_path: str | None = None, vis_path: str | None = None, data_type: str | None = None
) -> dict[str, Dataset[Any]]:
    """Return every split of the data set called `name`.

    Args:
        cfg_path: a yaml to use instead of the default one.
        vis_path: the image folder.
        data_type: LAVIS's kind of data; without effect.

    Raises:
        UnknownNameError: no such data set; the message names the nearest.
        ConfigError: missing files; says what to set.
    """
    builder_class = registry.get_builder_class(name)
    if cfg_path is None:
        settings = dataset_defaults(builder_class, name)
    else:
        content = OmegaConf.to_container(read_yaml(Path(cfg_path)), resolve=True)
        datasets = content.get("datasets") if isinstance(content, dict) else None
        if not datasets or name not in datasets:
            raise ConfigError(f"{cfg_path}: its section datasets has no {name!r}.")
        settings = datasets[name] or {}
    if vis_path is not None:
        settings["images"] = vis_path
    return builder_class.from_config(settings).build_datasets()


class DatasetZoo:
    """The names of all data sets, with the variants of each."""

    def get_names(self) -> list[str]:
        """Return the registered names."""
        return registry.list_datasets()

    def __iter__(self) -> Iterator[tuple[str, list[str]]]:
        for name in self.get_names():
            yield name, list(registry.get_builder_class(name).default_configs) or ["default"]

    def __len__(self) -> int:
        return len(self.get_names())

    def __str__(self) -> str:
        return "\n".join(f"{name:<24}{', '.join(variants)}" for name, variants in self)


dataset_zoo = DatasetZoo()
