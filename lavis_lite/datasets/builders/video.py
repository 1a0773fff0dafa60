"""Videos: MSR-VTT and MSVD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lavis_lite.common.registry import registry
from lavis_lite.datasets.annotations import Records
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

    def check_records(self, records: Records, is_train: bool) -> list[dict[str, Any]]:
        """Return records with "image" (a video) and "caption"; in training one record per caption."""
        checked = check_video_captions(records)
        if not is_train:
            return checked
        captions = [r["caption"] if isinstance(r["caption"], list) else [r["caption"]] for r in checked]
        return [
            {**record, "caption": text}
            for record, texts in zip(checked, captions, strict=True)
            for text in texts
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
