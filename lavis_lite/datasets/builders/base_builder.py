"""From a config section to data sets: where files lie, which class reads which split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch.utils.data import Dataset

from lavis_lite.common.config.schema import ConfigError, parse
from lavis_lite.common.registry import registry, suggest
from lavis_lite.common.storage.cache import fetch, resolve
from lavis_lite.datasets.annotations.image_names import locate, media_of, renamed
from lavis_lite.datasets.annotations.parquet_files import STORED_KEY

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class AnnotationInfo:
    """Files of one split: `storage` is where they lie or go, `url` where they come from."""

    url: str | list[str] | None = None
    md5: str | list[str] | None = None
    storage: str | list[str] | None = None


@dataclass
class ImagesInfo:
    """The image folder; a relative one lies in the cache folder."""

    storage: str | None = None


@dataclass
class BuildInfo:
    """LAVIS's ``build_info``."""

    annotations: dict[str, AnnotationInfo] = field(default_factory=dict)
    images: ImagesInfo = field(default_factory=ImagesInfo)


class BaseDatasetBuilder:
    """Make the splits of one data set.

    A subclass sets `train_dataset_cls` and `eval_dataset_cls`, or overrides `build`. Its default
    yaml files, by variant, stand in `default_configs`.
    """

    default_configs: ClassVar[Mapping[str, str]] = {}
    # Whether a split is refused of which most images are not there.
    refuse_missing: bool = True
    train_dataset_cls: ClassVar[type | None] = None
    eval_dataset_cls: ClassVar[type | None] = None

    @dataclass
    class Config:
        """Settings of a data set.

        Attributes:
            type: which variant of the data set, where it has several.
            vis_processor, text_processor: {train: {name, ...}, eval: {name, ...}}; the model's own
                where left out.
            build_info: files by split, as LAVIS has it.
            images: the image folder, in place of ``build_info.images.storage``.
        """

        type: str = "default"
        data_type: str = "images"
        vis_processor: dict[str, dict[str, Any]] = field(default_factory=dict)
        text_processor: dict[str, dict[str, Any]] = field(default_factory=dict)
        build_info: BuildInfo = field(default_factory=BuildInfo)
        images: str | None = None

    def __init__(self, config: Config) -> None:
        self.config = config
        self.vis_processors = {
            split: build_processor(config.vis_processor.get(split)) for split in ("train", "eval")
        }
        self.text_processors = {
            split: build_processor(config.text_processor.get(split)) for split in ("train", "eval")
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None = None) -> Self:
        """Build from a mapping of `Config` fields.

        Raises:
            ConfigError: an unknown key or a value of the wrong type.
        """
        return cls(parse(cls.Config, config or {}, where=cls.__name__))

    @property
    def name(self) -> str:
        """The registered name."""
        return registry.builders.name_of(type(self))

    def splits(self) -> list[str]:
        """Return the names of the splits that can be built."""
        return list(self.config.build_info.annotations)

    def build_datasets(self) -> dict[str, Dataset]:
        """Return every split by name."""
        return {split: self.build(split) for split in self.splits()}

    def build(self, split: str) -> Dataset:
        """Return one split; training splits augment and the others do not.

        Raises:
            ConfigError: no such split, or files that are not there; says what to set.
        """
        self.check_split(split)
        files = self.annotation_files(split)
        root = self.image_root()
        is_train = split == "train"
        processors = self.processors(is_train)
        dataset_class = self.train_dataset_cls if is_train else self.eval_dataset_cls
        records, missing = self.locate_images(self.read(files, is_train), root, split)
        dataset = dataset_class(records, root, *processors)
        dataset.missing_images = missing
        return dataset

    def read(self, files: list[Path], is_train: bool) -> list[dict[str, Any]]:
        """Return the checked annotations in `files`."""
        raise NotImplementedError

    def locate_images(
        self, records: list[dict[str, Any]], root: Path, split: str | None
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Return `records` with the names that their images have in `root`, and the names that are missing.

        Args:
            split: that the records belong to; None where they are those of all splits.

        Raises:
            AnnotationError: most are missing, or a name means several files.
        """
        files = [record for record in records if STORED_KEY not in record]
        names = (name for record in files for name in media_of(record))
        what = f"datasets.{self.name}" + (f", split {split!r}" if split else "")
        match = locate(names, root, what, self.refuse_missing)
        if match.renamed:
            records = [renamed(record, match.renamed) for record in records]
        return records, match.missing

    def processors(self, is_train: bool) -> tuple[Any, Any]:
        """Return the image and the text processor of a split."""
        split = "train" if is_train else "eval"
        return self.vis_processors[split], self.text_processors[split]

    def check_split(self, split: str) -> None:
        """Refuse a split that this data set does not have."""
        if split not in self.splits():
            raise ConfigError(f"datasets.{self.name}: has no split {split!r}.{suggest(split, self.splits())}")

    def annotation_files(self, split: str) -> list[Path]:
        """Return the local annotation files of a split, fetched where they have a url and are not here."""
        info = self.config.build_info.annotations[split]
        where = f"datasets.{self.name}.build_info.annotations.{split}"
        storages, urls, checksums = _as_list(info.storage), _as_list(info.url), _as_list(info.md5)
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
        """Return the image folder that is set, which may not be there; None where none is set."""
        if self.config.images:  # the user's own path, from the working directory
            return Path(self.config.images).expanduser()
        storage = self.config.build_info.images.storage  # ours, in the cache
        return None if storage is None else resolve(storage)

    def image_root(self) -> Path:
        """Return the image folder.

        Raises:
            ConfigError: it is not set, or not there.
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


def build_processor(settings: Mapping[str, Any] | None) -> Any:
    """Return the processor of ``{name: ..., ...settings}``, or one that changes nothing."""
    if not settings or not settings.get("name"):
        return _unchanged
    rest = {key: value for key, value in settings.items() if key != "name"}
    return registry.get_processor_class(settings["name"]).from_config(rest)


def _unchanged(item: Any) -> Any:
    return item


def _as_list(value: str | list[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
