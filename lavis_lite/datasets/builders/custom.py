"""A person's own images and captions: a folder and one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Dataset

from lavis_lite.common.image_files import find_images
from lavis_lite.common.random import key_seed
from lavis_lite.common.registry import registry
from lavis_lite.common.schema import ConfigError
from lavis_lite.datasets.annotations import (
    AnnotationError,
    check_caption_records,
    group_by_image,
    read_records,
)
from lavis_lite.datasets.builders.caption import CaptionBuilder


@registry.register_builder("caption_json")
class CaptionJsonBuilder(CaptionBuilder):
    """Images in a folder, captions in one ``.json``, ``.jsonl``, ``.csv`` or ``.parquet`` file.

    The file maps file names to a caption or a list of captions, or lists records that have an image
    ("image", "file_name", ...) and a caption ("caption", "text", ...). It is divided into train, val
    and test by image, the same way every time.
    """

    @dataclass
    class Config(CaptionBuilder.Config):
        """Settings.

        Attributes:
            annotations: the file, for all splits; or set ``build_info.annotations`` split by split.
            val_fraction: share of the images that validates; `test_fraction` likewise.
        """

        annotations: str | None = None
        val_fraction: float = 0.1
        test_fraction: float = 0.1

        def check(self) -> list[tuple[str, str]]:
            """Return complaints about values that cannot be."""
            complaints = super().check()
            if self.annotations is None and not self.build_info.annotations:
                complaints.append(("annotations", "is missing; name the file that holds the captions."))
            if not (self.val_fraction >= 0 and 0 <= self.test_fraction < 1 - self.val_fraction):
                complaints.append(("val_fraction", "and test_fraction must leave some images to train on."))
            return complaints

    config: Config

    def splits(self) -> list[str]:
        """Return the names of the splits that can be built."""
        return super().splits() or ["train", "val", "test"]

    def build(self, split: str) -> Dataset:
        """Return one split.

        Raises:
            ConfigError: the split would be empty.
        """
        if self.config.build_info.annotations:
            return super().build(split)
        self.check_split(split)
        path = self.annotation_file()
        records = self._share(self.read([path], is_train=False), split)
        if not records:
            raise ConfigError(
                f"datasets.{self.name}: the split {split!r} of {path} is empty; raise its fraction, add "
                f"images, or take it out of run.{'valid' if split == 'val' else split}_splits."
            )
        is_train = split == "train"
        if is_train and self.config.captions_per_image is None:
            records = [{**record, "caption": text} for record in records for text in record["caption"]]
        return self.dataset(records, self.image_root(), is_train)

    def annotation_file(self) -> Path:
        """Return the file of all splits."""
        return Path(self.config.annotations).expanduser()

    def read(self, files: list[Path], is_train: bool) -> list[dict[str, Any]]:
        """Return the checked annotations, one an image."""
        return list(
            group_by_image(
                record for path in files for record in check_caption_records(read_records(path), path, "any")
            )
        )

    def _share(self, records: list[dict[str, Any]], split: str) -> list[dict[str, Any]]:
        """Return the records of a split, in file order: who is in it depends on the file names alone."""
        by_chance = sorted(records, key=lambda record: key_seed("split", record["image"]))
        val, test = (
            _count(fraction, len(records))
            for fraction in (self.config.val_fraction, self.config.test_fraction)
        )
        bounds = {"val": (0, val), "test": (val, val + test), "train": (val + test, len(records))}
        chosen = {record["image"] for record in by_chance[slice(*bounds[split])]}
        return [record for record in records if record["image"] in chosen]


@registry.register_builder("image_folder")
class ImageFolderBuilder(CaptionJsonBuilder):
    """Images in a folder, beside each a ``.txt`` with its captions, one a line."""

    @dataclass
    class Config(CaptionBuilder.Config):
        """Settings.

        Attributes:
            val_fraction: share of the images that validates; `test_fraction` likewise.
            uncaptioned: "raise" refuses an image without captions, "skip" leaves it out.
        """

        val_fraction: float = 0.1
        test_fraction: float = 0.1
        uncaptioned: Literal["raise", "skip"] = "raise"

        # what the builder of one file asks for, and a folder has no use for
        annotations: str | None = None

        def check(self) -> list[tuple[str, str]]:
            """Return complaints about values that cannot be."""
            complaints = super().check()
            if self.images is None:
                complaints.append(("images", "is missing; name the folder that holds images and texts."))
            if self.annotations is not None:
                complaints.append(
                    ("annotations", "belongs to caption_json; here texts lie beside the images.")
                )
            if not (self.val_fraction >= 0 and 0 <= self.test_fraction < 1 - self.val_fraction):
                complaints.append(("val_fraction", "and test_fraction must leave some images to train on."))
            return complaints

    config: Config

    def annotation_file(self) -> Path:
        """Return the folder, which is what annotations are read from."""
        return self.image_root()

    def read(self, files: list[Path], is_train: bool) -> list[dict[str, Any]]:
        """Return the captions beside each image.

        Raises:
            AnnotationError: an image without captions; or no image at all.
        """
        (root,) = files
        records = []
        for image in find_images([root]):
            text = image.with_suffix(".txt")
            captions = text.read_text(encoding="utf-8-sig").splitlines() if text.is_file() else []
            captions = [line.strip() for line in captions if line.strip()]
            if captions:
                records.append({"image": image.relative_to(root).as_posix(), "caption": captions})
            elif self.config.uncaptioned == "raise":
                raise AnnotationError(
                    f"{image}: has no captions; write them into {text.name} beside it, one a line, or set "
                    f"datasets.{self.name}.uncaptioned: skip."
                )
        if not records:
            raise AnnotationError(f"{root}: no image there has a .txt with captions beside it.")
        return records


def _count(fraction: float, images: int) -> int:
    """Return how many images a fraction is: at least one, unless it is zero."""
    return max(1, round(fraction * images)) if fraction > 0 else 0
