"""Videos: MSR-VTT, MSVD, and the drawn clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lavis_lite.common.registry import registry
from lavis_lite.datasets.annotations import read_records
from lavis_lite.datasets.builders.retrieval import RetrievalBuilder
from lavis_lite.datasets.builders.shapes_drawn import DrawnBuilder, DrawnConfig
from lavis_lite.datasets.builders.vqa import VQABuilder
from lavis_lite.datasets.shapes.write_video import VideoSettings, write_video
from lavis_lite.datasets.video import (
    VideoQADataset,
    VideoQAEvalDataset,
    VideoRetrievalDataset,
    VideoRetrievalEvalDataset,
    check_video_captions,
)


@registry.register_builder("msrvtt_retrieval")
class MSRVTTRetrievalBuilder(RetrievalBuilder):
    """MSR-VTT: find a clip by its caption."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "msrvtt_retrieval"}
    train_dataset_cls = VideoRetrievalDataset
    eval_dataset_cls = VideoRetrievalEvalDataset

    def read(self, files: list[Path], is_train: bool) -> list[dict[str, Any]]:
        """Return the checked annotations of all files."""
        records = [record for path in files for record in check_video_captions(read_records(path))]
        if not is_train:
            return records
        return [
            {**record, "caption": text}
            for record in records
            for text in (record["caption"] if isinstance(record["caption"], list) else [record["caption"]])
        ]


class VideoQABuilder(VQABuilder):
    """Questions about videos."""

    train_dataset_cls = VideoQADataset
    eval_dataset_cls = VideoQAEvalDataset


@registry.register_builder("msrvtt_qa")
class MSRVTTQABuilder(VideoQABuilder):
    """Questions about the clips of MSR-VTT."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "msrvtt_qa"}


@registry.register_builder("msvd_qa")
class MSVDQABuilder(VideoQABuilder):
    """Questions about the clips of MSVD."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "msvd_qa"}


class _DrawnVideos(DrawnBuilder):
    drawn_name = "shapes_video"
    settings_class = VideoSettings
    write = staticmethod(write_video)
    media = "videos"


@registry.register_builder("shapes_video_retrieval")
class ShapesVideoRetrievalBuilder(_DrawnVideos, MSRVTTRetrievalBuilder):
    """Find a drawn clip by what happens in it."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "shapes_video_retrieval"}
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

    default_configs: ClassVar[Mapping[str, str]] = {"default": "shapes_video_qa"}
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
