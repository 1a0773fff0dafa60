"""The drawn data sets: made here, at first use, without any network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from lavis_lite.common.registry import registry
from lavis_lite.common.storage.cache import resolve
from lavis_lite.datasets.builders.caption import CaptionBuilder
from lavis_lite.datasets.builders.classification import ClassificationBuilder
from lavis_lite.datasets.builders.nlvr import NLVRBuilder
from lavis_lite.datasets.builders.retrieval import RetrievalBuilder
from lavis_lite.datasets.builders.video import MSRVTTRetrievalBuilder, VideoQABuilder
from lavis_lite.datasets.builders.vqa import VQABuilder
from lavis_lite.datasets.builders.web import WebCaptionBuilder
from lavis_lite.datasets.caption import CaptionEvalDataset

from .drawn import DrawnBuilder, DrawnConfig, WebConfig, defaults, ensure_web_shards
from .read import read_scenes
from .truth import main_object_is_right
from .write import write_shapes_caption
from .write_classification import ClassificationSettings, write_classification
from .write_nlvr import NLVRSettings, write_nlvr
from .write_video import VideoSettings, write_video
from .write_vqa import VQASettings, write_vqa


class ShapesCaptionEvalDataset(CaptionEvalDataset):
    """Drawn images, of which the truth is known."""

    scenes: Mapping[str, Any]

    def truth_metrics(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the share of captions that name the main object's shape and colour correctly."""
        right = [
            main_object_is_right(
                record["caption"], self.scenes[self.annotations[record["instance_id"]]["image"]]
            )
            for record in records
        ]
        return {"object_accuracy": sum(right) / len(right)} if right else {}


@registry.register_builder("shapes_caption")
class ShapesCaptionBuilder(CaptionBuilder):
    """Captions of drawn scenes, in COCO's layout."""

    default_configs = defaults("caption")
    eval_dataset_cls = ShapesCaptionEvalDataset

    @dataclass
    class Config(CaptionBuilder.Config):
        """Settings.

        Attributes:
            folder: where the data set is drawn; None for a folder in the cache, named by the settings.
            seed: of the scenes.
            train_images, val_images, test_images: how many of each.
            drawn_size: side of the drawn images in pixels.
        """

        folder: str | None = None
        seed: int = 42
        train_images: int = 4000
        val_images: int = 200
        test_images: int = 300
        drawn_size: int = 96

    config: Config

    def splits(self) -> list[str]:
        """Return the names of the splits that can be built."""
        return ["train", "val", "test"]

    def build(self, split: str) -> Dataset:
        """Return one split, drawing the data set first if it is not there."""
        self.check_split(split)
        folder = self.draw()
        is_train = split == "train"
        annotations = self.read([folder / "annotations" / f"shapes_karpathy_{split}.json"], is_train)
        dataset = self.dataset(annotations, folder / "images", is_train)
        if not is_train:
            dataset.scenes = read_scenes(folder, split)
        return dataset

    def draw(self) -> Path:
        """Draw the data set if it is not there, and return its folder."""
        config = self.config
        counts = (config.train_images, config.val_images, config.test_images)
        name = "_".join(str(number) for number in (config.seed, *counts, config.drawn_size))
        folder = Path(config.folder).expanduser() if config.folder else resolve(f"shapes/caption_{name}")
        write_shapes_caption(
            folder,
            seed=config.seed,
            train=config.train_images,
            val=config.val_images,
            test=config.test_images,
            image_size=config.drawn_size,
        )
        return folder


@registry.register_builder("shapes_retrieval")
class ShapesRetrievalBuilder(RetrievalBuilder):
    """The drawn scenes of shapes_caption, to find one by the other."""

    default_configs = defaults("retrieval")
    Config = ShapesCaptionBuilder.Config

    splits = ShapesCaptionBuilder.splits
    draw = ShapesCaptionBuilder.draw

    def annotation_files(self, split: str) -> list[Path]:
        """Return the file of a split, drawn first if it is not there."""
        return [self.draw() / "annotations" / f"shapes_karpathy_{split}.json"]

    def image_root(self) -> Path:
        """Return the folder of the images."""
        return self.draw() / "images"


@registry.register_builder("shapes_vqa")
class ShapesVQABuilder(DrawnBuilder, VQABuilder):
    """Questions about drawn scenes."""

    default_configs = defaults("vqa")
    drawn_name = "shapes_vqa"
    settings_class = VQASettings
    write = staticmethod(write_vqa)
    files = ("shapes_vqa_{split}.json", "answer_list.json")

    @dataclass
    class Config(VQASettings, DrawnConfig, VQABuilder.Config):
        """What is drawn and asked, and where."""

        def check(self) -> list[tuple[str, str]]:
            """Return complaints about values that cannot be."""
            return VQASettings.check(self)

    config: Config

    def annotation_files(self, split: str) -> list[Path]:
        """Return the file of questions, and of an evaluation split the list of answers."""
        files = super().annotation_files(split)
        return files[:1] if split == "train" else files


@registry.register_builder("shapes_nlvr")
class ShapesNLVRBuilder(DrawnBuilder, NLVRBuilder):
    """Sentences about two drawn scenes."""

    default_configs = defaults("nlvr")
    drawn_name = "shapes_nlvr"
    settings_class = NLVRSettings
    write = staticmethod(write_nlvr)
    files = ("shapes_nlvr_{split}.json",)

    @dataclass
    class Config(NLVRSettings, DrawnConfig, NLVRBuilder.Config):
        """What is drawn and said, and where."""

        def check(self) -> list[tuple[str, str]]:
            """Return complaints about values that cannot be."""
            return NLVRSettings.check(self)

    config: Config


@registry.register_builder("shapes_classification")
class ShapesClassificationBuilder(DrawnBuilder, ClassificationBuilder):
    """Drawn scenes, labelled by their largest object."""

    default_configs = defaults("classification")
    drawn_name = "shapes_classification"
    settings_class = ClassificationSettings
    write = staticmethod(write_classification)
    files = ("shapes_classification_{split}.json",)

    @dataclass
    class Config(ClassificationSettings, DrawnConfig, ClassificationBuilder.Config):
        """What is drawn, and where."""

        def check(self) -> list[tuple[str, str]]:
            """Return complaints about values that cannot be."""
            return ClassificationSettings.check(self)

    config: Config

    def class_names(self) -> list[str]:
        """Return the names that were written with the images."""
        return json.loads((self.draw() / "annotations" / "classes.json").read_text(encoding="utf-8"))


class _DrawnVideos(DrawnBuilder):
    drawn_name = "shapes_video"
    settings_class = VideoSettings
    write = staticmethod(write_video)
    media = "videos"


@registry.register_builder("shapes_video_retrieval")
class ShapesVideoRetrievalBuilder(_DrawnVideos, MSRVTTRetrievalBuilder):
    """Find a drawn clip by what happens in it."""

    default_configs = defaults("video_retrieval")
    files = ("shapes_video_retrieval_{split}.json",)

    @dataclass
    class Config(VideoSettings, DrawnConfig, RetrievalBuilder.Config):
        """What is drawn, and where."""

        def check(self) -> list[tuple[str, str]]:
            """Return complaints about values that cannot be."""
            return VideoSettings.check(self)

    config: Config


@registry.register_builder("shapes_video_qa")
class ShapesVideoQABuilder(_DrawnVideos, VideoQABuilder):
    """Questions about drawn clips."""

    default_configs = defaults("video_qa")
    files = ("shapes_video_qa_{split}.json", "answer_list.json")

    @dataclass
    class Config(VideoSettings, DrawnConfig, VideoQABuilder.Config):
        """What is drawn, and where."""

        def check(self) -> list[tuple[str, str]]:
            """Return complaints about values that cannot be."""
            return VideoSettings.check(self)

    config: Config

    def annotation_files(self, split: str) -> list[Path]:
        """Return the file of questions, and of an evaluation split the list of answers."""
        files = super().annotation_files(split)
        return files[:1] if split == "train" else files


@registry.register_builder("shapes_web")
class ShapesWebBuilder(WebCaptionBuilder):
    """Drawn scenes with captions as bad as the web's, drawn at first use."""

    default_configs = defaults("web")

    @dataclass
    class Config(WebConfig, WebCaptionBuilder.Config):
        """What is drawn, and how it is read."""

        def check(self) -> list[tuple[str, str]]:
            """Return complaints about values that cannot be."""
            return [*WebConfig.check(self), *WebCaptionBuilder.Config.check(self)]

    config: Config

    def shard_patterns(self) -> list[str]:
        """Return the folder of the drawn shards."""
        settings: dict[str, Any] = {
            name: getattr(self.config, name) for name in WebConfig.__dataclass_fields__
        }
        return [str(ensure_web_shards(WebConfig(**settings)))]
