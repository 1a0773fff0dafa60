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
    """Return `records` with a video's path under "image", as data sets of images have it, and "caption".

    Raises:
        AnnotationError: names file, place and key of the errors.
    """

    def check(record: Mapping[str, Any], where: str) -> dict[str, Any]:
        caption = value_of(record, CAPTION_KEYS, where)
        texts = caption if isinstance(caption, list) else [caption]
        checked = [text_of(text, f"{where}, key 'caption'") for text in texts]
        video = image_of(value_of(record, ("video", "video_id"), where), where)
        return {**record, "image": video, "caption": checked if isinstance(caption, list) else checked[0]}

    return check_each(records, check)


class _VideoFiles(BaseDataset):
    """Hands the processor of videos a path: it alone knows which frames are to be read."""

    def read_video(self, name: str) -> torch.Tensor:
        path = self.image_root / name
        if not path.exists():
            raise VideoError(f"{path}: no such video.")
        return self.vis_processor(path)


class VideoRetrievalDataset(_VideoFiles, RetrievalDataset):
    """Training items: {video, text_input, image_id, instance_id}."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        return {
            "video": self.read_video(annotation["image"]),
            "text_input": self.text_processor(annotation["caption"]),
            "image_id": self.image_numbers[annotation["image"]],
            "instance_id": index,
        }


class VideoRetrievalEvalDataset(_VideoFiles, RetrievalEvalDataset):
    """Evaluation items: {video, index}; `image` holds the videos' names."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"video": self.read_video(self.image[index]), "index": index, "instance_id": index}


class VideoQADataset(_VideoFiles, VQADataset):
    """Training items: {video, text_input, answers, weights, instance_id}."""

    media = "video"

    def media_of(self, annotation: Mapping[str, Any]) -> torch.Tensor:
        """Return frames (3, frames, height, width) of a question's video."""
        return self.read_video(annotation["video"])


class VideoQAEvalDataset(_VideoFiles, VQAEvalDataset):
    """Evaluation items: {video, text_input, question_id, instance_id, references, ...}."""

    media = "video"

    def media_of(self, annotation: Mapping[str, Any]) -> torch.Tensor:
        """Return frames (3, frames, height, width) of a question's video."""
        return self.read_video(annotation["video"])
