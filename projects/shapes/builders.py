"""The builders of the drawn data sets: they draw at first use, then read as the usual builders do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch.utils.data import Dataset

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import registry
from lavis_lite.datasets.builders.caption import CaptionBuilder
from lavis_lite.datasets.builders.classification import ClassificationBuilder
from lavis_lite.datasets.builders.nlvr import NLVRBuilder
from lavis_lite.datasets.builders.retrieval import RetrievalBuilder
from lavis_lite.datasets.builders.video import MSRVTTRetrievalBuilder, VideoQABuilder
from lavis_lite.datasets.builders.vqa import VQABuilder
from lavis_lite.datasets.builders.web import WebCaptionBuilder
from lavis_lite.datasets.caption import CaptionEvalDataset

from .pictures import SPLITS, read_scenes
from .scene import Scene
from .truth import main_object_is_right
from .write_caption import CaptionSettings
from .write_classification import ClassificationSettings
from .write_nlvr import NLVRSettings
from .write_once import DrawnSettings
from .write_video import VideoSettings
from .write_vqa import VQASettings
from .write_web import WebSettings

CONFIGS = Path(__file__).parent / "configs"


@dataclass
class DrawnConfig:
    """Where a data set is drawn.

    Attributes:
        folder: None for a folder in the cache, named after the settings.
    """

    folder: str | None = None


class DrawnBuilder:
    """Draw a data set before the usual builder reads it.

    Put this class before that builder among the bases, and set these attributes:

    Attributes:
        settings_class: what is drawn; `Config` extends it.
        files: names of a split's annotation files, with ``{split}`` in them.
        evaluation_files: further files that the splits other than "train" read.
        media: folder of the images or videos.
    """

    settings_class: ClassVar[type[DrawnSettings]]
    files: ClassVar[tuple[str, ...]] = ()
    evaluation_files: ClassVar[tuple[str, ...]] = ()
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
        settings_class, config = self.settings_class, self.config
        for key, value in (("images", config.images), ("build_info", config.build_info.annotations)):
            if value:
                raise ConfigError(
                    f"datasets.{settings_class.data_set}.{key}: this data set is drawn and reads no other "
                    "files; leave it out, or set folder to where it is to be drawn."
                )
        names = [field.name for field in dataclasses.fields(settings_class)]
        return settings_class(**{name: getattr(config, name) for name in names}).draw(config.folder)

    def annotation_files(self, split: str) -> list[Path]:
        """Return the annotation files of a split."""
        names = self.files if split == "train" else self.files + self.evaluation_files
        return [self.draw() / "annotations" / name.format(split=split) for name in names]

    def image_root(self) -> Path:
        """Return the folder of the images or videos."""
        return self.draw() / self.media


class ShapesCaptionEvalDataset(CaptionEvalDataset):
    """Drawn images whose scenes are known."""

    scenes: Mapping[str, Scene]

    def truth_metrics(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the share of captions that name the main object's shape and color correctly."""
        right = [
            main_object_is_right(
                record["caption"], self.scenes[self.annotations[record["instance_id"]]["image"]]
            )
            for record in records
        ]
        return {"object_accuracy": sum(right) / len(right)} if right else {}


@registry.register_builder("shapes_caption")
class ShapesCaptionBuilder(DrawnBuilder, CaptionBuilder):
    """Captions of drawn scenes, in COCO's layout."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": str(CONFIGS / "caption.yaml")}
    eval_dataset_cls = ShapesCaptionEvalDataset
    settings_class = CaptionSettings
    files = ("shapes_karpathy_{split}.json",)

    @dataclass
    class Config(CaptionSettings, DrawnConfig, CaptionBuilder.Config):
        """What is drawn, where, and how it is read."""

        def check(self) -> list[tuple[str, str]]:
            """Return an error for each value that cannot be used."""
            return [*CaptionSettings.check(self), *CaptionBuilder.Config.check(self)]

    config: Config

    def build(self, split: str) -> Dataset:
        """Return one split, drawing the data set first if it is not there."""
        dataset = super().build(split)
        if isinstance(dataset, ShapesCaptionEvalDataset):
            dataset.scenes = read_scenes(self.draw(), split)
        return dataset


@registry.register_builder("shapes_retrieval")
class ShapesRetrievalBuilder(DrawnBuilder, RetrievalBuilder):
    """The drawn scenes of shapes_caption, to find an image by its caption and the reverse."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": str(CONFIGS / "retrieval.yaml")}
    settings_class = CaptionSettings
    files = ("shapes_karpathy_{split}.json",)

    @dataclass
    class Config(CaptionSettings, DrawnConfig, RetrievalBuilder.Config):
        """What is drawn, and where."""

    config: Config


@registry.register_builder("shapes_vqa")
class ShapesVQABuilder(DrawnBuilder, VQABuilder):
    """Questions about drawn scenes."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": str(CONFIGS / "vqa.yaml")}
    settings_class = VQASettings
    files = ("shapes_vqa_{split}.json",)
    evaluation_files = ("answer_list.json",)

    @dataclass
    class Config(VQASettings, DrawnConfig, VQABuilder.Config):
        """What is drawn and asked, and where."""

    config: Config


@registry.register_builder("shapes_nlvr")
class ShapesNLVRBuilder(DrawnBuilder, NLVRBuilder):
    """Sentences about two drawn scenes."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": str(CONFIGS / "nlvr.yaml")}
    settings_class = NLVRSettings
    files = ("shapes_nlvr_{split}.json",)

    @dataclass
    class Config(NLVRSettings, DrawnConfig, NLVRBuilder.Config):
        """What is drawn and said, and where."""

    config: Config


@registry.register_builder("shapes_classification")
class ShapesClassificationBuilder(DrawnBuilder, ClassificationBuilder):
    """Drawn scenes, labeled by their largest object."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": str(CONFIGS / "classification.yaml")}
    settings_class = ClassificationSettings
    files = ("shapes_classification_{split}.json",)

    @dataclass
    class Config(ClassificationSettings, DrawnConfig, ClassificationBuilder.Config):
        """What is drawn, and where."""

    config: Config

    def class_names(self) -> list[str]:
        """Return the class names that were written with the images."""
        return json.loads((self.draw() / "annotations" / "classes.json").read_text(encoding="utf-8"))


@registry.register_builder("shapes_video_retrieval")
class ShapesVideoRetrievalBuilder(DrawnBuilder, MSRVTTRetrievalBuilder):
    """Find a drawn clip by what happens in it."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": str(CONFIGS / "video_retrieval.yaml")}
    settings_class = VideoSettings
    files = ("shapes_video_retrieval_{split}.json",)
    media = "videos"

    @dataclass
    class Config(VideoSettings, DrawnConfig, MSRVTTRetrievalBuilder.Config):
        """What is drawn, and where."""

    config: Config


@registry.register_builder("shapes_video_qa")
class ShapesVideoQABuilder(DrawnBuilder, VideoQABuilder):
    """Questions about drawn clips."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": str(CONFIGS / "video_qa.yaml")}
    settings_class = VideoSettings
    files = ("shapes_video_qa_{split}.json",)
    evaluation_files = ("answer_list.json",)
    media = "videos"

    @dataclass
    class Config(VideoSettings, DrawnConfig, VideoQABuilder.Config):
        """What is drawn, and where."""

    config: Config


@registry.register_builder("shapes_web")
class ShapesWebBuilder(DrawnBuilder, WebCaptionBuilder):
    """Drawn scenes with captions as bad as the web's, in tar shards."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": str(CONFIGS / "web.yaml")}
    settings_class = WebSettings

    @dataclass
    class Config(WebSettings, DrawnConfig, WebCaptionBuilder.Config):
        """What is drawn, where, and how it is read."""

        def check(self) -> list[tuple[str, str]]:
            """Return an error for each value that cannot be used."""
            return [*WebSettings.check(self), *WebCaptionBuilder.Config.check(self)]

    config: Config

    def splits(self) -> list[str]:
        """Return the only split."""
        return ["train"]

    def shard_patterns(self) -> list[str]:
        """Return the folder of the drawn shards."""
        return [str(self.draw())]
