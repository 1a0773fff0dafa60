"""Videos: MSR-VTT and MSVD."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from lavis_lite.common.registry import registry
from lavis_lite.datasets.annotations import read_records
from lavis_lite.datasets.builders.retrieval import RetrievalBuilder
from lavis_lite.datasets.builders.vqa import VQABuilder
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
