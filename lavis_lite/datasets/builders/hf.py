"""Data sets of the Hugging Face hub, or saved by its library, as images with captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.utils.data import Dataset

from lavis_lite.common.images import to_upright_rgb
from lavis_lite.common.registry import registry, suggest
from lavis_lite.common.schema import ConfigError
from lavis_lite.datasets.base_dataset import BaseDataset
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder


class HuggingFaceCaptions(BaseDataset):
    """Rows with an image and one or several captions; in training one of them is drawn."""

    def __init__(self, rows: Any, is_train: bool, columns: tuple[str, str], *processors: Any) -> None:
        super().__init__(rows, Path(), *processors)
        self.is_train = is_train
        self.image_column, self.caption_column = columns

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.annotations[index]
        captions = row[self.caption_column]
        captions = [captions] if isinstance(captions, str) else list(captions)
        image = self.vis_processor(to_upright_rgb(row[self.image_column]))
        if not self.is_train:
            return {"image": image, "image_id": index, "instance_id": index, "references": captions}
        drawn = captions[int(torch.randint(len(captions), ()))]
        text = self.text_processor(drawn)
        return {"image": image, "text_input": text, "image_id": index, "instance_id": index}


@registry.register_builder("hf_dataset")
class HuggingFaceBuilder(BaseDatasetBuilder):
    """A data set of the hub, or a folder that `save_to_disk` wrote, with an image and captions a row."""

    default_configs: ClassVar[Mapping[str, str]] = {}

    @dataclass
    class Config(BaseDatasetBuilder.Config):
        """Settings.

        Attributes:
            path: hub name ("owner/name") or folder.
            subset: configuration of the data set on the hub, where it has several.
            image_column, caption_column: names of the columns.
            split_names: our names of splits -> the data set's own, where they differ.
        """

        path: str | None = None
        subset: str | None = None
        image_column: str = "image"
        caption_column: str = "caption"
        split_names: dict[str, str] | None = None

        def check(self) -> list[tuple[str, str]]:
            """Return complaints about values that cannot be."""
            return [] if self.path else [("path", "is missing; give a hub name or a folder.")]

    config: Config

    def splits(self) -> list[str]:
        """Return the names of the splits."""
        theirs = list(self._load())
        named = self.config.split_names or {"val": "validation"}
        renamed = {own: name for own, name in named.items() if name in theirs}
        return [*renamed, *(name for name in theirs if name not in renamed.values())]

    def build(self, split: str) -> Dataset:
        """Return one split.

        Raises:
            ConfigError: no such split or column, or the library is not installed.
        """
        self.check_split(split)
        named = self.config.split_names or {"val": "validation"}
        data = self._load()
        rows = data[named[split] if named.get(split) in data else split]
        for column in (self.config.image_column, self.config.caption_column):
            if column not in rows.column_names:
                raise ConfigError(
                    f"datasets.{self.name}: {self.config.path} has no column {column!r}."
                    f"{suggest(column, rows.column_names)}"
                )
        columns = (self.config.image_column, self.config.caption_column)
        is_train = split == "train"
        return HuggingFaceCaptions(rows, is_train, columns, *self.processors(is_train))

    def _load(self) -> Any:
        try:
            from datasets import DatasetDict, load_dataset, load_from_disk
        except ImportError as error:
            raise ConfigError(
                f"datasets.{self.name} needs the library of that name: pip install lavis-lite[hf]."
            ) from error
        path = Path(self.config.path).expanduser()
        if path.is_dir():
            data = load_from_disk(str(path))
            return data if isinstance(data, DatasetDict) else {"train": data}
        return load_dataset(self.config.path, self.config.subset)
