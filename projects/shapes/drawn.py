"""What the builders of drawn data sets share: they draw at first use, and then read what they drew."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.storage.cache import resolve

from .write_images import SPLITS
from .write_once import Settings, identity_of
from .write_web import WebSettings, write_web


def defaults(name: str) -> dict[str, str]:
    """Return the default yaml of a drawn data set, as `default_configs` names it."""
    return {"default": str(Path(__file__).parent / "configs" / f"{name}.yaml")}


@dataclass
class DrawnConfig:
    """Where a data set is drawn.

    Attributes:
        folder: None for a folder in the cache, named by the settings.
    """

    folder: str | None = None


class DrawnBuilder:
    """Draw the data set before a builder of the usual kind reads it.

    To stand before that builder among the bases. A subclass names what is drawn.

    Attributes:
        drawn_name: of the data set ("shapes_vqa").
        settings_class: of what is drawn; `Config` extends it.
        write: draws into a folder, unless all is there.
        files: names of a split's annotation files, with ``{split}`` in them.
        media: folder of the images or videos.
    """

    drawn_name: ClassVar[str]
    settings_class: ClassVar[type]
    write: ClassVar[Callable[[Path, Any], Path]]
    files: ClassVar[tuple[str, ...]]
    media: ClassVar[str] = "images"

    config: Any

    def splits(self) -> list[str]:
        """Return the names of the splits that can be built."""
        return list(SPLITS)

    def draw(self) -> Path:
        """Draw the data set if it is not there, and return its folder.

        Raises:
            ConfigError: files are named, which would not be read.
        """
        for key, value in (
            ("images", self.config.images),
            ("build_info", self.config.build_info.annotations),
        ):
            if value:
                raise ConfigError(
                    f"datasets.{self.drawn_name}.{key}: this data set is drawn and reads no other files; "
                    "leave it out, or set folder to where it is to be drawn."
                )
        settings = settings_of(self.settings_class, self.config)
        return type(self).write(drawn_folder(self.drawn_name, settings, self.config.folder), settings)

    def annotation_files(self, split: str) -> list[Path]:
        """Return the files of a split."""
        folder = self.draw() / "annotations"
        return [folder / name.format(split=split) for name in self.files]

    def image_root(self) -> Path:
        """Return the folder of the images or videos."""
        return self.draw() / self.media


def settings_of(settings_class: type, config: Any) -> Any:
    """Return the part of `config` that decides what is drawn."""
    names = [field.name for field in dataclasses.fields(settings_class)]
    return settings_class(**{name: getattr(config, name) for name in names})


def drawn_folder(name: str, settings: Settings, folder: str | None) -> Path:
    """Return `folder`, or where in the cache a data set of these settings lies."""
    if folder is not None:
        return Path(folder).expanduser()
    identity = json.dumps(identity_of(name, settings), sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
    return resolve(f"shapes/{name.removeprefix('shapes_')}_{digest}")


@dataclass
class WebConfig(WebSettings, DrawnConfig):
    """What noisy shards are drawn, and where."""


def ensure_web_shards(config: WebConfig) -> Path:
    """Draw the noisy shards of `config` if they are not there, and return their folder.

    `shard_paths` lists the shards in it, and `read_truth` tells what is wrong with each caption.
    """
    settings = settings_of(WebSettings, config)
    return write_web(drawn_folder("shapes_web", settings, config.folder), settings)
