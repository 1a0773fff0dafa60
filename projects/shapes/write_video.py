"""Short videos with captions and questions, in the layout that LAVIS gives MSRVTT.

===================================================  ============================================
``annotations/shapes_video_retrieval_train.json``    one ``{"video", "caption"}`` a caption; val and
                                                     test have one caption a video
``annotations/shapes_video_qa_train.json``           ``{"question_id", "video", "question", "answer",
                                                     "question_type"}``; val and test too
``annotations/answer_list.json``                     all answers
``clips/train.jsonl``                                what each video shows; val and test too
``videos/train/video50000000.avi``                   JPEG frames in an AVI container
===================================================  ============================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .animate import Clip, all_clip_answers, clip_captions, clip_questions, sample_clip
from .avi import mjpeg_avi
from .pictures import SPLITS, jpeg, numbers_of
from .scene import numbered_rng
from .write_once import DrawnSettings, check_sizes, write_json, write_jsonl

FRAMES_PER_SECOND = 8
CAPTIONS_PER_TRAIN_VIDEO = 3


@dataclass(frozen=True)
class _Film:
    """A numbered clip and the path of its file below ``videos``."""

    number: int
    video: str
    clip: Clip


@dataclass
class VideoSettings(DrawnSettings):
    """All that the files depend on.

    Attributes:
        train_videos, val_videos, test_videos: how many videos each split has.
        drawn_size: width and height of the videos in pixels.
    """

    data_set: ClassVar[str] = "shapes_video"
    train_videos: int = 200
    val_videos: int = 50
    test_videos: int = 200
    drawn_size: int = 64

    def check(self) -> list[tuple[str, str]]:
        """Return an error for each value that cannot be drawn."""
        return check_sizes(self, "train_videos", "val_videos", "test_videos")

    def write(self, folder: Path) -> None:
        """Write all files into `folder`."""
        write_json(all_clip_answers(), folder / "annotations" / "answer_list.json")
        for split in SPLITS:
            numbers = numbers_of(self.data_set, split, getattr(self, f"{split}_videos"))
            films = [
                _Film(
                    number, f"{split}/video{number}.avi", sample_clip(numbered_rng(self.seed, number, "clip"))
                )
                for number in numbers
            ]
            self._write_videos(folder / "videos", split, films)
            annotations = folder / "annotations"
            captions = list(self._captions(split, films))
            write_json(captions, annotations / f"shapes_video_retrieval_{split}.json")
            write_json(list(_questions(films)), annotations / f"shapes_video_qa_{split}.json")
            clips = [{"video": film.video, "clip": film.clip.to_json()} for film in films]
            write_jsonl(clips, folder / "clips" / f"{split}.jsonl")

    def _write_videos(self, folder: Path, split: str, films: Sequence[_Film]) -> None:
        side = self.drawn_size
        (folder / split).mkdir(parents=True)
        for film in films:
            frames = [jpeg(image) for image in film.clip.images(side)]
            (folder / film.video).write_bytes(mjpeg_avi(frames, side, side, FRAMES_PER_SECOND))

    def _captions(self, split: str, films: Sequence[_Film]) -> Iterator[dict[str, str]]:
        per_video = CAPTIONS_PER_TRAIN_VIDEO if split == "train" else 1
        for film in films:
            rng = numbered_rng(self.seed, film.number, "captions")
            for caption in clip_captions(film.clip, rng, per_video):
                yield {"video": film.video, "caption": caption}


def _film(seed: int, split: str, number: int) -> _Film:
    return _Film(number, f"{split}/video{number}.avi", sample_clip(numbered_rng(seed, number, "clip")))


def read_clips(folder: Path, split: str) -> dict[str, Clip]:
    """Return video name -> clip of a split that was drawn into `folder`."""
    lines = (folder / "clips" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return {record["video"]: Clip.from_json(record["clip"]) for record in records}


def _questions(films: Sequence[_Film]) -> Iterator[dict[str, Any]]:
    for film in films:
        for index, question in enumerate(clip_questions(film.clip)):
            yield {
                "question_id": film.number * 10 + index,
                "video": film.video,
                "question": question.text,
                "answer": question.answer,
                "question_type": question.type,
            }
