"""Write short videos with captions and questions, in the layout that LAVIS gives MSRVTT.

===================================================  ============================================
``annotations/shapes_video_retrieval_train.json``    one ``{"video", "caption"}`` a caption; val and
                                                     test have one caption a video
``annotations/shapes_video_qa_train.json``           ``{"question_id", "video", "question", "answer",
                                                     "question_type"}``; val and test too
``annotations/answer_list.json``                     every answer that there is
``clips/train.jsonl``                                what each video shows; val and test too
``videos/train/video50000000.avi``                   JPEG frames in an AVI container
===================================================  ============================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .animate import (
    Clip,
    all_clip_answers,
    clip_captions,
    clip_questions,
    sample_clip,
)
from .avi import mjpeg_avi
from .scene import numbered_rng
from .write_images import SPLITS, check_sizes, jpeg, numbers_of
from .write_once import write_json, write_jsonl, write_once

FRAMES_PER_SECOND = 8
CAPTIONS_PER_TRAIN_VIDEO = 3


@dataclass
class VideoSettings:
    """All that the files depend on.

    Args:
        train_videos: how many the split has; so `val_videos` and `test_videos`.
        drawn_size: pixels a side.
    """

    version = 1  # no field: count up whenever one seed no longer gives the same files
    seed: int = 42
    train_videos: int = 200
    val_videos: int = 50
    test_videos: int = 200
    drawn_size: int = 64

    def check(self) -> list[tuple[str, str]]:
        """Return complaints about values that cannot be."""
        return check_sizes(self, "train_videos", "val_videos", "test_videos")


@dataclass(frozen=True)
class _Film:
    """A numbered clip and the path of its file below ``videos``."""

    number: int
    video: str
    clip: Clip


def write_video(folder: str | Path, settings: VideoSettings) -> Path:
    """Write the data set into `folder`, if it is not there yet, and return the folder.

    Raises:
        ShapesError: settings that cannot be, or a folder that holds something else.
    """
    return write_once("shapes_video", folder, settings, lambda aside: _write_all(aside, settings))


def read_clips(folder: Path, split: str) -> dict[str, Clip]:
    """Return video name -> clip of a split that `write_video` wrote into `folder`."""
    lines = (folder / "clips" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return {record["video"]: Clip.from_json(record["clip"]) for record in records}


def _write_all(folder: Path, settings: VideoSettings) -> None:
    write_json(all_clip_answers(), folder / "annotations" / "answer_list.json")
    for split in SPLITS:
        films = [
            _film(settings.seed, split, number)
            for number in numbers_of("video", split, getattr(settings, f"{split}_videos"))
        ]
        _write_split(folder, split, films, settings)


def _film(seed: int, split: str, number: int) -> _Film:
    return _Film(number, f"{split}/video{number}.avi", sample_clip(numbered_rng(seed, number, "clip")))


def _write_split(folder: Path, split: str, films: Sequence[_Film], settings: VideoSettings) -> None:
    side = settings.drawn_size
    (folder / "videos" / split).mkdir(parents=True)
    for film in films:
        frames = [jpeg(image) for image in film.clip.images(side)]
        (folder / "videos" / film.video).write_bytes(mjpeg_avi(frames, side, side, FRAMES_PER_SECOND))
    per_video = CAPTIONS_PER_TRAIN_VIDEO if split == "train" else 1
    retrieval = [
        {"video": film.video, "caption": caption}
        for film in films
        for caption in clip_captions(
            film.clip, numbered_rng(settings.seed, film.number, "captions"), per_video
        )
    ]
    annotations = folder / "annotations"
    write_json(retrieval, annotations / f"shapes_video_retrieval_{split}.json")
    write_json(list(_questions(films)), annotations / f"shapes_video_qa_{split}.json")
    clips = [{"video": film.video, "clip": film.clip.to_json()} for film in films]
    write_jsonl(clips, folder / "clips" / f"{split}.jsonl")


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
