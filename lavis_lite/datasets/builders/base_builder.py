"""Building the splits of a data set from its config section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch.utils.data import Dataset

from lavis_lite.common.config.schema import ConfigError, parse
from lavis_lite.common.registry import registry, suggest
from lavis_lite.common.storage.cache import fetch, resolve
from lavis_lite.datasets.annotations import Records, read_records
from lavis_lite.datasets.annotations.image_names import locate, media_of, renamed
from lavis_lite.datasets.annotations.parquet_files import STORED_KEY
from lavis_lite.datasets.base_dataset import BaseDataset, Processor

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class AnnotationInfo:
    """The annotation files of a split.

    Attributes:
        url: where they are downloaded from.
        md5: checksums of the downloads.
        storage: local paths; relative ones are in the cache folder.
    """

    url: str | list[str] | None = None
    md5: str | list[str] | None = None
    storage: str | list[str] | None = None


@dataclass
class ImagesInfo:
    """The image folder; a relative path is in the cache folder."""

    storage: str | None = None


@dataclass
class BuildInfo:
    """LAVIS's ``build_info``."""

    annotations: dict[str, AnnotationInfo] = field(default_factory=dict)
    images: ImagesInfo = field(default_factory=ImagesInfo)


class BaseDatasetBuilder:
    """Builds the splits of one data set.

    A subclass sets `train_dataset_cls` and `eval_dataset_cls` and implements `check_records`, or
    overrides `build`. `default_configs` names its default yaml files by variant.

    Attributes:
        refuse_missing: refuse a split if most of its images are missing.
    """

    default_configs: ClassVar[Mapping[str, str]] = {}
    refuse_missing: bool = True
    train_dataset_cls: ClassVar[type[BaseDataset] | None] = None
    eval_dataset_cls: ClassVar[type[BaseDataset] | None] = None

    @dataclass
    class Config:
        """Settings of a data set.

        Attributes:
            type: variant of the data set, if it has several.
            data_type: LAVIS's kind of data; without effect.
            vis_processor, text_processor: {train: {name, ...}, eval: {name, ...}}; those of the model if
                left out.
            build_info: files by split, as in LAVIS.
            images: the image folder, instead of ``build_info.images.storage``.
        """

        type: str = "default"
        data_type: str = "images"
        vis_processor: dict[str, dict[str, Any]] = field(default_factory=dict)
        text_processor: dict[str, dict[str, Any]] = field(default_factory=dict)
        build_info: BuildInfo = field(default_factory=BuildInfo)
        images: str | None = None

    def __init__(self, config: Config) -> None:
        self.config = config
        splits = ("train", "eval")
        self.vis_processors = {split: build_processor(config.vis_processor.get(split)) for split in splits}
        self.text_processors = {split: build_processor(config.text_processor.get(split)) for split in splits}

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | Config | None = None) -> Self:
        """Build from a mapping of `Config` fields or from a `Config`.

        Raises:
            ConfigError: an unknown key or a value of the wrong type.
        """
        return cls(
            config if isinstance(config, cls.Config) else parse(cls.Config, config or {}, where=cls.__name__)
        )

    @property
    def name(self) -> str:
        """The registered name."""
        return registry.builders.name_of(type(self))

    def splits(self) -> list[str]:
        """Return the names of the splits that can be built."""
        return list(self.config.build_info.annotations)

    def build_datasets(self) -> dict[str, Dataset[Any]]:
        """Return every split by name."""
        return {split: self.build(split) for split in self.splits()}

    def build(self, split: str) -> Dataset[Any]:
        """Return one split; only the split "train" is augmented.

        Raises:
            ConfigError: no such split, or missing files; says what to set.
            AnnotationError: invalid annotations, or most images are missing.
        """
        self.check_split(split)
        is_train = split == "train"
        root = self.image_root()
        records = self.read(self.annotation_files(split), is_train)
        records, missing = self.locate_images(records, root, split)
        dataset = self.dataset(records, root, is_train)
        dataset.missing_images = missing
        return dataset

    def read(self, files: list[Path], is_train: bool) -> list[dict[str, Any]]:
        """Return the checked records of all `files`."""
        return [record for path in files for record in self.check_records(read_records(path), is_train)]

    def check_records(self, records: Records, is_train: bool) -> list[dict[str, Any]]:
        """Return the records of one file with the keys that the data set reads.

        Raises:
            AnnotationError: invalid records; names file, record and key.
        """
        raise NotImplementedError

    def dataset(self, records: list[dict[str, Any]], image_root: Path, is_train: bool) -> BaseDataset:
        """Return the data set of checked records."""
        dataset_class = self.train_dataset_cls if is_train else self.eval_dataset_cls
        assert dataset_class is not None, f"{type(self).__name__} must set its dataset classes"
        return dataset_class(records, image_root, *self.processors(is_train))

    def locate_images(
        self, records: list[dict[str, Any]], root: Path, split: str | None
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Return `records` with the names of their files in `root`, and the names without a file.

        Args:
            split: the split of the records; None if they are those of all splits.

        Raises:
            AnnotationError: most images are missing, or a name could mean several files.
        """
        names = (name for record in records if STORED_KEY not in record for name in media_of(record))
        what = f"datasets.{self.name}" + (f", split {split!r}" if split else "")
        match = locate(names, root, what, self.refuse_missing)
        if match.renamed:
            records = [renamed(record, match.renamed) for record in records]
        return records, match.missing

    def processors(self, is_train: bool) -> tuple[Processor, Processor]:
        """Return the image and the text processor of a split."""
        split = "train" if is_train else "eval"
        return self.vis_processors[split], self.text_processors[split]

    def check_split(self, split: str) -> None:
        """Raise `ConfigError` if this data set does not have `split`."""
        if split not in self.splits():
            raise ConfigError(f"datasets.{self.name}: has no split {split!r}.{suggest(split, self.splits())}")

    def annotation_files(self, split: str) -> list[Path]:
        """Return the local annotation files of a split; missing ones that have a url are downloaded."""
        info = self.config.build_info.annotations[split]
        where = f"datasets.{self.name}.build_info.annotations.{split}"
        storages, urls, checksums = map(as_list, (info.storage, info.url, info.md5))
        files = []
        for index in range(max(len(storages), len(urls))):
            local = resolve(storages[index]) if index < len(storages) else None
            if local is not None and local.is_file():
                files.append(local)
            elif index < len(urls):
                md5 = checksums[index] if index < len(checksums) else None
                files.append(fetch(urls[index], destination=local, md5=md5))
            else:
                here = Path(storages[index]).expanduser().absolute()
                hint = f" Relative paths lie below the cache folder; write {str(here)!r}." * here.is_file()
                raise ConfigError(
                    f"{where}.storage: no file {str(local)!r}, and no url to fetch it from.{hint}"
                )
        if not files:
            raise ConfigError(f"{where}: names neither a storage nor a url.")
        return files

    def image_folder(self) -> Path | None:
        """Return the configured image folder, which may not exist; None if none is configured."""
        if self.config.images:
            return Path(self.config.images).expanduser()  # relative to the working directory
        storage = self.config.build_info.images.storage
        return None if storage is None else resolve(storage)

    def image_root(self) -> Path:
        """Return the image folder.

        Raises:
            ConfigError: it is not set, or does not exist.
        """
        root = self.image_folder()
        if root is None:
            raise ConfigError(f"datasets.{self.name}: set images to the folder that the images lie in.")
        if not root.is_dir():
            raise ConfigError(
                f"datasets.{self.name}.images: no folder {str(root)!r}. Put the images there, or set "
                f"datasets.{self.name}.images to the folder that holds them."
            )
        return root


def build_processor(settings: Mapping[str, Any] | None) -> Processor:
    """Return the processor of ``{name: ..., ...settings}``, or one that changes nothing."""
    if not settings or not settings.get("name"):
        return _unchanged
    rest = {key: value for key, value in settings.items() if key != "name"}
    return registry.get_processor_class(settings["name"]).from_config(rest)


def _unchanged(item: Any) -> Any:
    return item


def as_list(value: str | list[str] | None) -> list[str]:
    """Return a setting that may be one text, several, or none, as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
