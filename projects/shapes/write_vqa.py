"""Write questions about drawn images, in the layout that LAVIS gives VQA.

==========================================  =====================================================
``annotations/shapes_vqa_train.json``       ``{"question_id", "image", "question", "answer": [ten],
                                            "dataset": "vqa", "question_type"}``
``annotations/shapes_vqa_val.json``         ``{"question_id", "image", "question", "answer": [ten],
                                            "question_type"}``; test too
``annotations/answer_list.json``            every answer that there is
``scenes/train.jsonl``                      what each image shows; val and test too
``images/train/000020000000.jpg``           the images
==========================================  =====================================================

The ten answers are what ten people would say, who see the same: all are alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .questions import QUESTION_TYPES, all_answers, questions
from .scene import numbered_rng
from .write_images import (
    SPLITS,
    Picture,
    check_sizes,
    pictures_of,
    write_pictures,
)
from .write_once import write_json, write_once

ANSWERS_PER_QUESTION = 10


@dataclass
class VQASettings:
    """All that the files depend on.

    Args:
        train_images: how many the split has; so `val_images` and `test_images`.
        drawn_size: pixels a side.
        questions_per_image: at most so many, each of another type.
        question_types: some of `QUESTION_TYPES`.
        hard: ask about the small objects too, and about relations between objects.
    """

    version = 1  # no field: count up whenever one seed no longer gives the same files
    seed: int = 42
    train_images: int = 6000
    val_images: int = 200
    test_images: int = 400
    drawn_size: int = 64
    questions_per_image: int = 3
    question_types: tuple[str, ...] = QUESTION_TYPES
    hard: bool = False

    def check(self) -> list[tuple[str, str]]:
        """Return complaints about values that cannot be."""
        complaints = check_sizes(self, "train_images", "val_images", "test_images")
        types = self.question_types
        if not types or set(types) - set(QUESTION_TYPES):
            text = f"is {', '.join(types) or 'empty'}; give some of {', '.join(QUESTION_TYPES)}."
            complaints.append(("question_types", text))
        elif not 1 <= self.questions_per_image <= len(types):
            text = f"is {self.questions_per_image}; give 1 to {len(types)}, each is of another type."
            complaints.append(("questions_per_image", text))
        return complaints


def write_vqa(folder: str | Path, settings: VQASettings) -> Path:
    """Write the data set into `folder`, if it is not there yet, and return the folder.

    Raises:
        ShapesError: settings that cannot be, or a folder that holds something else.
    """
    return write_once("shapes_vqa", folder, settings, lambda aside: _write_all(aside, settings))


def _write_all(folder: Path, settings: VQASettings) -> None:
    answers = all_answers(settings.question_types, settings.hard)
    write_json(answers, folder / "annotations" / "answer_list.json")
    for split in SPLITS:
        pictures = pictures_of("vqa", split, settings.seed, getattr(settings, f"{split}_images"))
        write_pictures(folder, split, pictures, settings.drawn_size)
        records = list(_records(pictures, settings, {"dataset": "vqa"} if split == "train" else {}))
        write_json(records, folder / "annotations" / f"shapes_vqa_{split}.json")


def _records(
    pictures: Sequence[Picture], settings: VQASettings, extra: dict[str, str]
) -> Iterator[dict[str, Any]]:
    for picture in pictures:
        rng = numbered_rng(settings.seed, picture.number, "questions")
        asked = questions(
            picture.scene, rng, settings.questions_per_image, settings.question_types, settings.hard
        )
        for index, question in enumerate(asked):
            yield {
                "question_id": picture.number * 10 + index,
                "image": picture.image,
                "question": question.text,
                "answer": [question.answer] * ANSWERS_PER_QUESTION,
                **extra,
                "question_type": question.type,
            }
