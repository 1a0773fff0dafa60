"""Videos with texts, and questions about videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lavis_lite.common.media.video import VideoError
from lavis_lite.datasets.annotations import CAPTION_KEYS, Records, check_each, image_of, text_of, value_of
from lavis_lite.datasets.base_dataset import BaseDataset
from lavis_lite.datasets.retrieval import RetrievalDataset, RetrievalEvalDataset
from lavis_lite.datasets.vqa import VQADataset, VQAEvalDataset


def check_video_captions(records: Records) -> list[dict[str, Any]]:
    """Return `records` with the path of a video under "image", as in data sets of images, and "caption".

    Raises:
        AnnotationError: invalid records; names file, record and key.
    """

    def check(record: Mapping[str, Any], where: str) -> dict[str, Any]:
        caption = value_of(record, CAPTION_KEYS, where)
        texts = caption if isinstance(caption, list) else [caption]
        checked = [text_of(text, f"{where}, key 'caption'") for text in texts]
        video = image_of(value_of(record, ("video", "video_id"), where), where)
        return {**record, "image": video, "caption": checked if isinstance(caption, list) else checked[0]}

    return check_each(records, check)


class _VideoFiles(BaseDataset):
    """Passes the path of a video to its processor, which decides which frames to read."""

    media = "video"

    def read_media(self, name: str) -> torch.Tensor:
        """Return the processed frames (3, frames, height, width) of the video called `name`.

        Raises:
            VideoError: missing, or not readable.
        """
        path = self.image_root / name
        if not path.exists():
            raise VideoError(f"{path}: no such video.")
        return self.vis_processor(path)


class VideoRetrievalDataset(_VideoFiles, RetrievalDataset):
    """Training items: {video, text_input, image_id, instance_id}."""


class VideoRetrievalEvalDataset(_VideoFiles, RetrievalEvalDataset):
    """Evaluation items: {video, index, instance_id}; `image` holds the names of the videos."""


class VideoQADataset(_VideoFiles, VQADataset):
    """Training items: {video, text_input, answers, weights, instance_id}."""


class VideoQAEvalDataset(_VideoFiles, VQAEvalDataset):
    """Evaluation items: {video, text_input, question_id, instance_id, references, ...}."""
