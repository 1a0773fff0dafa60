"""Data sets by name: ``load_dataset("coco_caption")``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Dataset

from lavis_lite.common.config.layering import dataset_defaults
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import registry
from lavis_lite.datasets.builders import (
    caption,
    classification,
    custom,
    hf,
    image_text_pair,
    nlvr,
    retrieval,
    video,
    vqa,
    web,
)
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder

__all__ = [
    "BaseDatasetBuilder",
    "caption",
    "classification",
    "custom",
    "dataset_zoo",
    "hf",
    "image_text_pair",
    "load_dataset",
    "nlvr",
    "retrieval",
    "video",
    "vqa",
    "web",
]


def load_dataset(
    name: str, cfg_path: str | None = None, vis_path: str | None = None, data_type: str | None = None
) -> dict[str, Dataset]:
    """Return every split of the data set called `name`.

    Args:
        cfg_path: a yaml in place of the default one.
        vis_path: the image folder.
        data_type: "images", "videos" or "features", where a data set has several.

    Raises:
        UnknownNameError: no such data set; the message names the nearest.
        ConfigError: files that are not there; says what to set.
    """
    builder_class = registry.get_builder_class(name)
    settings: dict[str, Any] = (
        dataset_defaults(builder_class, name) if cfg_path is None else _read(cfg_path, name)
    )
    if vis_path is not None:
        settings["images"] = vis_path
    if data_type is not None:
        settings["data_type"] = data_type
    return builder_class.from_config(settings).build_datasets()


def _read(cfg_path: str, name: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    datasets = OmegaConf.to_container(OmegaConf.load(cfg_path), resolve=True).get("datasets") or {}
    if name not in datasets:
        raise ConfigError(f"{cfg_path}: its section datasets has no {name!r}.")
    return datasets[name] or {}


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
