"""The user's own images and captions: a folder and one file, or texts beside the images."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

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
    value_of,
)
from lavis_lite.datasets.annotations.caption_files import CAPTION_SUFFIXES, captions_beside
from lavis_lite.datasets.annotations.parquet_files import STORED_KEY
from lavis_lite.datasets.base_dataset import BaseDataset
from lavis_lite.datasets.builders.caption import CaptionBuilder

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
# Names of splits in annotations -> ours. "restval" is Karpathy's, and used for training.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

# Records, their image folder, and names of images without a file.
Located = tuple[list[dict[str, Any]], Path, list[str]]


class OwnCaptionsBuilder(CaptionBuilder):
    """Captions of one source, divided into splits: as the records say, or else by file name.

    A subclass implements `source`, and `read`, which returns records with a list of captions each.
    """

    @dataclass
    class Config(CaptionBuilder.Config):
        """Settings of data that is divided into splits.

        Attributes:
            annotations: the file of captions.
            val_fraction: share of the images in the split "val".
            test_fraction: share of the images in the split "test".
        """

        annotations: str | None = None
        val_fraction: float = 0.1
        test_fraction: float = 0.1

        def check(self) -> list[tuple[str, str]]:
            """Return the key and the error of each invalid value."""
            errors = super().check()
            if not (self.val_fraction >= 0 and 0 <= self.test_fraction < 1 - self.val_fraction):
                errors.append(("val_fraction", "and test_fraction must leave some images to train on."))
            return errors

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._images_by_split: dict[str, set[str]] = {}

    def source(self) -> Path:
        """Return the file or folder of all splits."""
        raise NotImplementedError

    def splits(self) -> list[str]:
        """Return the names of the splits."""
        return list(SPLITS)

    def build(self, split: str) -> BaseDataset:
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
        self._warn_of_overlap(split, names)
        return dataset

    @cached_property
    def _all_records(self) -> list[dict[str, Any]]:
        return self.read([self.source()], is_train=False)

    @cached_property
    def _all_located(self) -> Located:
        return self._located(self._all_records, None)

    @cached_property
    def _divided(self) -> dict[str, list[dict[str, Any]]]:
        """The records of the source by split, one for each image."""
        records = self._all_located[0]
        if any(SPLIT_KEY in record for record in records):
            return {
                split: group_by_image(record for record in records if record[SPLIT_KEY] == split)
                for split in SPLITS
            }
        records = group_by_image(records)
        # by a hash of the file names, so that the split of an image does not change
        images = sorted((r["image"] for r in records), key=lambda image: key_seed("split", image))
        val, test = (
            max(1, round(fraction * len(records))) if fraction > 0 else 0
            for fraction in (self.config.val_fraction, self.config.test_fraction)
        )
        split_of = dict.fromkeys(images, "train")
        split_of |= dict.fromkeys(images[:val], "val")
        split_of |= dict.fromkeys(images[val : val + test], "test")
        return {
            split: [record for record in records if split_of[record["image"]] == split] for split in SPLITS
        }

    def _records_of(self, split: str) -> Located:
        records = self._divided[split]
        if not records:
            raise ConfigError(
                f"datasets.{self.name}: the split {split!r} of {self.source()} is empty; raise its "
                f"fraction, add images, or take it out of run.{'valid' if split == 'val' else split}_splits."
            )
        return (records, *self._all_located[1:])

    def _located(self, records: list[dict[str, Any]], split: str | None) -> Located:
        if all(STORED_KEY in record for record in records):
            # no folder, so that no other file is mistaken for one of these images
            return records, records[0][STORED_KEY].path, []
        root = self.image_root()
        records, missing = self.locate_images(records, root, split)
        return records, root, missing

    def _warn_of_overlap(self, split: str, images: set[str]) -> None:
        for other, others in self._images_by_split.items():
            both = sorted(images & others) if other != split else []
            if both:
                logger.warning(
                    "datasets.%s: %d of the %d images of the split %r are in %r, too: %s.",
                    self.name, len(both), len(images), split, other, listed(both),
                )  # fmt: skip
        self._images_by_split[split] = images


@registry.register_builder("caption_json")
class CaptionJsonBuilder(OwnCaptionsBuilder):
    """Images in a folder, captions in one ``.json``, ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet`` file.

    The file maps file names to a caption or a list of captions, or lists records that have an image
    ("image", "file_name", ...) and a caption ("caption", "text", ...). If its records name their split,
    they are in that split; otherwise the images are divided into train, val and test, always in the same way.
    """

    @dataclass
    class Config(OwnCaptionsBuilder.Config):
        """Settings: `annotations` is the file of all splits, unless ``build_info`` has one for each."""

        def check(self) -> list[tuple[str, str]]:
            """Return the key and the error of each invalid value."""
            errors = super().check()
            if self.annotations is None and not self.build_info.annotations:
                errors.append(("annotations", "is missing; name the file that holds the captions."))
            if self.annotations is not None and self.build_info.annotations:
                errors.append(("annotations", "is set beside build_info.annotations; leave one of them out."))
            return errors

    def source(self) -> Path:
        """Return the file of all splits."""
        return Path(str(self.config.annotations)).expanduser()

    def splits(self) -> list[str]:
        """Return the names of the splits: those that the records name, or else all three.

        Raises:
            AnnotationError: the annotation file exists, and cannot be used.
        """
        if self.config.build_info.annotations:
            return list(self.config.build_info.annotations)
        if not self.source().exists():  # an error when a split is built
            return list(SPLITS)
        named = {record[SPLIT_KEY] for record in self._all_records if SPLIT_KEY in record}
        return [split for split in SPLITS if split in named or not named]

    def check_records(self, records: Records, is_train: bool) -> list[dict[str, Any]]:
        """Return records with "image", a list of captions, and our name of the split if they name one."""
        root = self.image_folder()
        return _with_splits(
            records, check_caption_records(records, "any", image_root=root, refuse_no_value=True)
        )

    def _records_of(self, split: str) -> Located:
        if not self.config.build_info.annotations:
            return super()._records_of(split)
        records = self.read(self.annotation_files(split), split == "train")
        records, root, missing = self._located(records, split)
        return group_by_image(records), root, missing


def _with_splits(records: Records, checked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the checked records with our names of the splits that they name, if any.

    Raises:
        AnnotationError: an unknown split, or a record without a split where others have one.
    """
    named = [value_of(record, (SPLIT_KEY,), "", required=False) for record in checked]
    if not any(named):
        return checked
    errors = ErrorList(records.path, records.unit)
    for index, name in enumerate(named):
        if str(name).strip().lower() not in SPLIT_NAMES:
            errors.add(
                records.label(index),
                f", key {SPLIT_KEY!r}: {name!r:.80} is no split.{suggest(str(name), SPLIT_NAMES)} To have "
                "the images divided, leave the key out of all records.",
            )
    errors.raise_if_any()
    return [
        {**record, SPLIT_KEY: SPLIT_NAMES[str(name).strip().lower()]}
        for record, name in zip(checked, named, strict=True)
    ]


@registry.register_builder("image_folder")
class ImageFolderBuilder(OwnCaptionsBuilder):
    """Images in a folder, each with a ``.txt`` or ``.caption`` file of captions, one on each line."""

    @dataclass
    class Config(OwnCaptionsBuilder.Config):
        """Settings of a folder of images and texts.

        Attributes:
            uncaptioned: "raise" refuses images without captions, "skip" leaves them out.
            caption_extension: suffix of the caption files; .txt and .caption if left out.
        """

        uncaptioned: Literal["raise", "skip"] = "raise"
        caption_extension: str | None = None

        def check(self) -> list[tuple[str, str]]:
            """Return the key and the error of each invalid value."""
            errors = super().check()
            if self.images is None:
                errors.append(("images", "is missing; name the folder that holds images and texts."))
            if self.annotations is not None or self.build_info.annotations:
                errors.append(("annotations", "belongs to caption_json; here texts lie beside the images."))
            return errors

    config: Config

    def source(self) -> Path:
        """Return the folder."""
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
