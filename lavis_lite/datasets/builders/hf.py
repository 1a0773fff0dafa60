"""Data sets of the Hugging Face hub, or saved by its library, with images and captions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import first_line
from lavis_lite.common.media.images import to_upright_rgb
from lavis_lite.common.registry import registry, suggest
from lavis_lite.datasets.annotations import AnnotationError, ErrorList, text_of
from lavis_lite.datasets.base_dataset import BaseDataset
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder

logger = logging.getLogger(__name__)

# Data files by suffix -> format, as the library calls it.
_FILE_KINDS = {".parquet": "parquet", ".arrow": "arrow"}


class HuggingFaceCaptions(BaseDataset):
    """Rows with an image and one or several captions, one of which is drawn in training."""

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

    @dataclass
    class Config(BaseDatasetBuilder.Config):
        """Settings of a data set of the hub.

        Attributes:
            path: hub name ("owner/name"), a folder, or a parquet file.
            subset: configuration of the data set on the hub, if it has several.
            image_column: column of the images.
            caption_column: column of the captions, a text or a list of texts in each row.
            split_names: our name of a split -> that of the data set, where they differ.
            uncaptioned: "raise" refuses rows without an image or a caption, "skip" leaves them out.
        """

        path: str | None = None
        subset: str | None = None
        image_column: str = "image"
        caption_column: str = "caption"
        split_names: dict[str, str] | None = None
        uncaptioned: Literal["raise", "skip"] = "raise"

        def check(self) -> list[tuple[str, str]]:
            """Return the key and the error of each invalid value."""
            return [] if self.path else [("path", "is missing; give a hub name or a folder.")]

    config: Config

    def splits(self) -> list[str]:
        """Return the names of the splits."""
        return list(self._names)

    @cached_property
    def _names(self) -> dict[str, str]:
        """Our name of each split -> that of the data set."""
        renamed = self.config.split_names or {"val": "validation"}
        names = {ours: theirs for ours, theirs in renamed.items() if theirs in self._data}
        others = [name for name in self._data if name not in names and name not in names.values()]
        return names | {name: name for name in others}

    def build(self, split: str) -> BaseDataset:
        """Return one split.

        Raises:
            ConfigError: no such split or column, or the library is not installed.
            AnnotationError: rows without an image or a caption.
        """
        self.check_split(split)
        rows = self._data[self._names[split]]
        columns = (self.config.image_column, self.config.caption_column)
        for column in columns:
            if column not in rows.column_names:
                raise ConfigError(
                    f"datasets.{self.name}: {self.config.path} has no column {column!r}."
                    f"{suggest(column, rows.column_names)}"
                )
        self._check_kinds(rows)
        is_train = split == "train"
        return HuggingFaceCaptions(self._usable(rows, split), is_train, columns, *self.processors(is_train))

    def _check_kinds(self, rows: Any) -> None:
        """Raise `ConfigError` unless the columns hold images and texts."""
        from datasets import Image

        where = f"datasets.{self.name}"
        kinds = dict(rows.features)
        image, caption = kinds[self.config.image_column], kinds[self.config.caption_column]
        if not isinstance(image, Image):
            images = [name for name, kind in kinds.items() if isinstance(kind, Image)]
            raise ConfigError(
                f"{where}.image_column: {self.config.image_column!r} holds no images but {image}. "
                f"Columns of images: {', '.join(images) or 'none'}."
            )
        element = caption[0] if isinstance(caption, list) else getattr(caption, "feature", None)
        if not (_is_text(caption) or _is_text(element)):
            texts = [name for name, kind in kinds.items() if _is_text(kind)]
            raise ConfigError(
                f"{where}.caption_column: {self.config.caption_column!r} holds neither texts nor lists of "
                f"texts but {caption}. Columns of texts: {', '.join(texts) or 'none'}."
            )

    def _usable(self, rows: Any, split: str) -> Any:
        """Return the rows with an image and captions; others are an error unless `uncaptioned` is "skip"."""
        errors = ErrorList(f"{self.config.path}, split {split!r}", "row")
        bad = set()
        for number in _rows_without_image(rows, self.config.image_column):
            errors.add(str(number), f", column {self.config.image_column!r}: has no image.")
            bad.add(number)
        captions = rows.select_columns([self.config.caption_column])
        for number, row in enumerate(captions):
            try:
                _check_captions(row[self.config.caption_column])
            except AnnotationError as error:
                errors.add(str(number), f", column {self.config.caption_column!r}{error}")
                bad.add(number)
        if not bad:
            return rows
        if self.config.uncaptioned == "raise" or len(bad) == len(rows):
            raise AnnotationError(
                f"{errors.message()} Repair {len(bad)} of {len(rows)} rows, or set "
                f"datasets.{self.name}.uncaptioned: skip."
            )
        logger.warning("%d of %d rows are left out. %s", len(bad), len(rows), errors.message())
        return rows.select([number for number in range(len(rows)) if number not in bad])

    @cached_property
    def _data(self) -> Mapping[str, Any]:
        """The splits by their names in the data set."""
        try:
            from datasets import DatasetDict, load_dataset, load_from_disk
        except ImportError as error:
            raise ConfigError(
                f"datasets.{self.name} needs the library of that name: pip install lavis-lite[hf]."
            ) from error
        path = Path(str(self.config.path)).expanduser()
        saved = any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))
        kind = _FILE_KINDS.get(path.suffix.lower())
        try:
            if saved:
                data = load_from_disk(str(path))
            elif kind is not None and path.is_file():
                data = load_dataset(kind, data_files=str(path))
            else:  # a folder of data files, or a name of the hub
                data = load_dataset(str(path) if path.is_dir() else str(self.config.path), self.config.subset)
        except Exception as error:  # the library has no base class for its errors
            what = "the folder" if path.is_dir() else "no file or folder here; the hub's data set"
            raise ConfigError(
                f"datasets.{self.name}.path: {what} {str(self.config.path)!r} cannot be loaded: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error
        return data if isinstance(data, DatasetDict) else {"train": data}


def _is_text(kind: Any) -> bool:
    return getattr(kind, "dtype", None) in ("string", "large_string")


def _check_captions(captions: str | Sequence[str] | None) -> None:
    if captions is None:
        raise AnnotationError(": has no caption.")
    if not captions:
        raise AnnotationError(": has no caption, but an empty text or list.")
    for text in [captions] if isinstance(captions, str) else captions:
        text_of(text, "")


def _rows_without_image(rows: Any, column: str) -> list[int]:
    """Return the indices of the rows without an image, without decoding any."""
    from datasets import Image

    undecoded = rows.select_columns([column]).cast_column(column, Image(decode=False))
    stored = undecoded.data.column(column)
    fields = [chunk.field(name) for chunk in stored.chunks for name in ("bytes", "path")]
    if not stored.null_count and not any(field.null_count for field in fields[::2]):
        return []  # usual; do not read the images
    images = (row[column] for row in undecoded)
    return [
        number
        for number, image in enumerate(images)
        if image is None or not (image["bytes"] or image["path"])
    ]
