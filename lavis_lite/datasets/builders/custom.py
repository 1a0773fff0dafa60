"""A person's own images and captions: a folder and one file, or texts beside the images."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch.utils.data import Dataset

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.media.image_files import find_images
from lavis_lite.common.registry import registry, suggest
from lavis_lite.common.seeding import key_seed
from lavis_lite.datasets.annotations import (
    SPLIT_KEY,
    AnnotationError,
    ErrorList,
    Records,
    check_caption_records,
    group_by_image,
    listed,
    read_records,
    value_of,
)
from lavis_lite.datasets.annotations.caption_files import CAPTION_SUFFIXES, captions_beside
from lavis_lite.datasets.annotations.parquet_files import STORED_KEY
from lavis_lite.datasets.builders.caption import CaptionBuilder

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
# What a file may call a split -> our name. "restval" is Karpathy's; everybody trains on it.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@registry.register_builder("caption_json")
class CaptionJsonBuilder(CaptionBuilder):
    """Images in a folder, captions in one ``.json``, ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet`` file.

    The file maps file names to a caption or a list of captions, or lists records that have an image
    ("image", "file_name", ...) and a caption ("caption", "text", ...). Where its records name their split,
    they are in that split; else the images are divided into train, val and test, the same way every time.
    """

    @dataclass
    class Config(CaptionBuilder.Config):
        """Settings.

        Attributes:
            annotations: the file, for all splits; or set ``build_info.annotations`` split by split.
            val_fraction: share of the images that validates.
            test_fraction: share of the images that is tested on.
        """

        annotations: str | None = None
        val_fraction: float = 0.1
        test_fraction: float = 0.1

        def check(self) -> list[tuple[str, str]]:
            """Return complaints about values that cannot be."""
            complaints = super().check()
            if self.annotations is None and not self.build_info.annotations:
                complaints.append(("annotations", "is missing; name the file that holds the captions."))
            if self.annotations is not None and self.build_info.annotations:
                complaints.append(
                    ("annotations", "is set beside build_info.annotations; leave one of them out.")
                )
            if not (self.val_fraction >= 0 and 0 <= self.test_fraction < 1 - self.val_fraction):
                complaints.append(("val_fraction", "and test_fraction must leave some images to train on."))
            return complaints

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._images_by_split: dict[str, set[str]] = {}

    def splits(self) -> list[str]:
        """Return the names of the splits: those that the records name, if they do, or else all three.

        Raises:
            AnnotationError: the annotation file is there, and cannot be used.
        """
        if self.config.build_info.annotations:
            return super().splits()
        if not self.annotation_file().exists():  # which is an error once a split is built
            return list(SPLITS)
        named = {record[SPLIT_KEY] for record in self._all_records if SPLIT_KEY in record}
        return [split for split in SPLITS if split in named or not named]

    def build(self, split: str) -> Dataset:
        """Return one split.

        Raises:
            ConfigError: the split would be empty.
            AnnotationError: annotations or images that cannot be used.
        """
        self.check_split(split)
        is_train = split == "train"
        records, root, missing = self._records_of(split)
        if is_train and self.config.captions_per_image is None:
            records = [{**record, "caption": text} for record in records for text in record["caption"]]
        dataset = self.dataset(records, root, is_train)
        names = {record["image"] for record in records}
        dataset.missing_images = [name for name in missing if name in names]
        self._name_overlap(split, names)
        return dataset

    def annotation_file(self) -> Path:
        """Return the file of all splits."""
        return Path(str(self.config.annotations)).expanduser()

    def read(self, files: list[Path], is_train: bool) -> list[dict[str, Any]]:
        """Return the checked annotations of all files, each with a list of captions."""
        return [record for path in files for record in self._read(path)]

    @cached_property
    def _all_records(self) -> list[dict[str, Any]]:
        """The records of the file of all splits."""
        return self.read([self.annotation_file()], is_train=False)

    @cached_property
    def _all_located(self) -> tuple[list[dict[str, Any]], Path, list[str]]:
        return self._located(self._all_records, None)

    @cached_property
    def _divided(self) -> dict[str, list[dict[str, Any]]]:
        """The records of the file of all splits, one an image, by split."""
        records = self._all_located[0]
        if any(SPLIT_KEY in record for record in records):
            return {
                split: list(group_by_image(record for record in records if record[SPLIT_KEY] == split))
                for split in SPLITS
            }
        return self._shares(list(group_by_image(records)))

    def _records_of(self, split: str) -> tuple[list[dict[str, Any]], Path, list[str]]:
        """Return the records of a split, one an image, the image folder, and the names of missing images."""
        if self.config.build_info.annotations:
            files = self.annotation_files(split)
            records, root, missing = self._located(self.read(files, split == "train"), split)
            return list(group_by_image(records)), root, missing
        records = self._divided[split]
        if not records:
            raise ConfigError(
                f"datasets.{self.name}: the split {split!r} of {self.annotation_file()} is empty; raise its "
                f"fraction, add images, or take it out of run.{'valid' if split == 'val' else split}_splits."
            )
        return (records, *self._all_located[1:])

    def _located(
        self, records: list[dict[str, Any]], split: str | None
    ) -> tuple[list[dict[str, Any]], Path, list[str]]:
        """Return `records` with the names of their files, the image folder, and the missing names."""
        if all(STORED_KEY in record for record in records):
            # no folder, so that no other file is ever taken for one of these images
            return records, records[0][STORED_KEY].path, []
        root = self.image_root()
        records, missing = self.locate_images(records, root, split)
        return records, root, missing

    def _read(self, path: Path) -> list[dict[str, Any]]:
        records = read_records(path)
        checked = check_caption_records(records, "any", image_root=self.image_folder(), refuse_no_value=True)
        return _with_splits(records, checked)

    def _name_overlap(self, split: str, images: set[str]) -> None:
        """Name the images that a split built earlier has, too."""
        for other, others in self._images_by_split.items():
            both = sorted(images & others) if other != split else []
            if both:
                logger.warning(
                    "datasets.%s: %d of the %d images of the split %r are in %r, too: %s.",
                    self.name, len(both), len(images), split, other, listed(both),
                )  # fmt: skip
        self._images_by_split[split] = images

    def _shares(self, records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
        """Divide records, in file order: which split has an image depends on the file names alone."""
        by_chance = sorted(
            (record["image"] for record in records), key=lambda image: key_seed("split", image)
        )
        val, test = (
            _count(fraction, len(records))
            for fraction in (self.config.val_fraction, self.config.test_fraction)
        )
        split_of = dict.fromkeys(by_chance, "train")
        split_of |= dict.fromkeys(by_chance[:val], "val")
        split_of |= dict.fromkeys(by_chance[val : val + test], "test")
        shares: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        for record in records:
            shares[split_of[record["image"]]].append(record)
        return shares


def _with_splits(records: Records, checked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the checked records with our names of the splits that they name, if they do.

    Raises:
        AnnotationError: a record names no split where others do, or one that is not known.
    """
    named = [value_of(record, (SPLIT_KEY,), "", required=False) for record in checked]
    if not any(named):
        return checked
    errors = ErrorList(records.path, records.unit)
    result = []
    for index, (record, name) in enumerate(zip(checked, named, strict=True)):
        split = SPLIT_NAMES.get(str(name).strip().lower())
        if split is None:
            errors.add(
                records.label(index),
                f", key {SPLIT_KEY!r}: {name!r:.80} is no split.{suggest(str(name), SPLIT_NAMES)} To have "
                "the images divided, leave the key out of all records.",
            )
        else:
            result.append({**record, SPLIT_KEY: split})
    errors.raise_if_any()
    return result


@registry.register_builder("image_folder")
class ImageFolderBuilder(CaptionJsonBuilder):
    """Images in a folder, beside each a ``.txt`` or ``.caption`` with its captions, one a line."""

    @dataclass
    class Config(CaptionBuilder.Config):
        """Settings.

        Attributes:
            val_fraction: share of the images that validates.
            test_fraction: share of the images that is tested on.
            uncaptioned: "raise" refuses an image without captions, "skip" leaves it out.
            caption_extension: what the files of captions end in; .txt and .caption where left out.
        """

        val_fraction: float = 0.1
        test_fraction: float = 0.1
        uncaptioned: Literal["raise", "skip"] = "raise"
        caption_extension: str | None = None

        # what the builder of one file asks for, and a folder has no use for
        annotations: str | None = None

        def check(self) -> list[tuple[str, str]]:
            """Return complaints about values that cannot be."""
            complaints = super().check()
            if self.images is None:
                complaints.append(("images", "is missing; name the folder that holds images and texts."))
            if self.annotations is not None or self.build_info.annotations:
                complaints.append(
                    ("annotations", "belongs to caption_json; here texts lie beside the images.")
                )
            if not (self.val_fraction >= 0 and 0 <= self.test_fraction < 1 - self.val_fraction):
                complaints.append(("val_fraction", "and test_fraction must leave some images to train on."))
            return complaints

    config: Config

    def splits(self) -> list[str]:
        """Return the names of the splits, of which a folder has always three."""
        return list(SPLITS)

    def annotation_file(self) -> Path:
        """Return the folder, which is what annotations are read from."""
        return self.image_root()

    def read(self, files: list[Path], is_train: bool) -> list[dict[str, Any]]:
        """Return the captions beside each image.

        Raises:
            AnnotationError: an image without captions, a text that cannot be read, or no caption at all.
        """
        (root,) = files
        extension = self.config.caption_extension
        suffixes = CAPTION_SUFFIXES if extension is None else (f".{extension.lstrip('.')}",)
        captions = captions_beside(find_images([root]), root, suffixes)
        names = {image: image.relative_to(root).as_posix() for image in captions}
        bare = [names[image] for image, texts in captions.items() if not texts]
        if len(bare) == len(captions):
            raise AnnotationError(
                f"{root}: none of {len(bare)} images has captions beside it: {bare[0]} has no "
                f"{' or '.join(Path(bare[0]).stem + suffix for suffix in suffixes)}, or an empty one."
            )
        if bare and self.config.uncaptioned == "raise":
            raise AnnotationError(
                f"{root / bare[0]}: has no captions; write them into {Path(bare[0]).stem}{suffixes[0]} "
                f"beside it, one a line, or set datasets.{self.name}.uncaptioned: skip. "
                f"{len(bare)} of {len(captions)} images have none: {listed(bare)}."
            )
        if bare:
            logger.warning(
                "%s: %d of %d images have no captions and are left out: %s.",
                root, len(bare), len(captions), listed(bare),
            )  # fmt: skip
        return [{"image": names[image], "caption": texts} for image, texts in captions.items() if texts]


def _count(fraction: float, images: int) -> int:
    """Return how many images a fraction is: at least one, unless it is zero."""
    return max(1, round(fraction * images)) if fraction > 0 else 0
