"""Questions about drawn images, in the layout that LAVIS gives VQA.

==========================================  =====================================================
``annotations/shapes_vqa_train.json``       ``{"question_id", "image", "question", "answer": [ten],
                                            "dataset": "vqa", "question_type"}``
``annotations/shapes_vqa_val.json``         ``{"question_id", "image", "question", "answer": [ten],
                                            "question_type"}``; test too
``annotations/answer_list.json``            all answers
``scenes/train.jsonl``                      what each image shows; val and test too
``images/train/000020000000.jpg``           the images
==========================================  =====================================================

The ten answers, as ten people would give them, are all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from .pictures import SPLITS, Picture, draw_pictures, numbers_of
from .questions import QUESTION_TYPES, all_answers, questions
from .scene import numbered_rng
from .write_once import DrawnSettings, check_sizes, write_json

ANSWERS_PER_QUESTION = 10


@dataclass
class VQASettings(DrawnSettings):
    """All that the files depend on.

    Attributes:
        train_images, val_images, test_images: how many images each split has.
        drawn_size: width and height of the images in pixels.
        questions_per_image: at most so many, each of another type.
        question_types: some of `QUESTION_TYPES`.
        hard: also ask about the small objects and about relations between objects.
    """

    data_set: ClassVar[str] = "shapes_vqa"
    train_images: int = 6000
    val_images: int = 200
    test_images: int = 400
    drawn_size: int = 64
    questions_per_image: int = 3
    question_types: tuple[str, ...] = QUESTION_TYPES
    hard: bool = False

    def check(self) -> list[tuple[str, str]]:
        """Return an error for each value that cannot be drawn."""
        errors = check_sizes(self, "train_images", "val_images", "test_images")
        types = self.question_types
        if not types or set(types) - set(QUESTION_TYPES):
            text = f"is {', '.join(types) or 'empty'}; give some of {', '.join(QUESTION_TYPES)}."
            errors.append(("question_types", text))
        elif not 1 <= self.questions_per_image <= len(types):
            text = f"is {self.questions_per_image}; give 1 to {len(types)}, each is of another type."
            errors.append(("questions_per_image", text))
        return errors

    def write(self, folder: Path) -> None:
        """Write all files into `folder`."""
        annotations = folder / "annotations"
        write_json(all_answers(self.question_types, self.hard), annotations / "answer_list.json")
        for split in SPLITS:
            numbers = numbers_of(self.data_set, split, getattr(self, f"{split}_images"))
            pictures = draw_pictures(folder, split, self.seed, numbers, self.drawn_size)
            extra = {"dataset": "vqa"} if split == "train" else {}
            write_json(list(self._records(pictures, extra)), annotations / f"shapes_vqa_{split}.json")

    def _records(self, pictures: Sequence[Picture], extra: dict[str, str]) -> Iterator[dict[str, Any]]:
        for picture in pictures:
            rng = numbered_rng(self.seed, picture.number, "questions")
            asked = questions(picture.scene, rng, self.questions_per_image, self.question_types, self.hard)
            for index, question in enumerate(asked):
                yield {
                    "question_id": picture.number * 10 + index,
                    "image": picture.image,
                    "question": question.text,
                    "answer": [question.answer] * ANSWERS_PER_QUESTION,
                    **extra,
                    "question_type": question.type,
                }
