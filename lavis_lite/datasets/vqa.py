"""Questions about images: items for training and for evaluation."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from lavis_lite.datasets.annotations import AnnotationError, Records, check_each, image_of, text_of, value_of
from lavis_lite.datasets.base_dataset import BaseDataset, collate

# Weight of an answer in Visual Genome, where one person answered each question (from BLIP's code).
LONE_ANSWER_WEIGHT = 0.2
ANSWER_KEYS = ("answer", "answers", "direct_answers")


def check_questions(records: Records, media: str = "image") -> list[dict[str, Any]]:
    """Return `records` with "question", a path under `media`, "question_id", and "answer" as a list of texts.

    The answers of a test split may be missing.

    Raises:
        AnnotationError: invalid records; names file, record and key.
    """
    numbers = itertools.count()

    def check(record: Mapping[str, Any], where: str) -> dict[str, Any]:
        number = next(numbers)
        answers = value_of(record, ANSWER_KEYS, where, required=False)
        answers = answers if isinstance(answers, list) else [answers]
        return {
            **record,
            media: image_of(value_of(record, (media,), where), where),
            "question": text_of(value_of(record, ("question",), where), f"{where}, key 'question'"),
            "question_id": record.get("question_id", number),
            "answer": [_answer_text(answer, f"{where}, key 'answer'") for answer in answers],
        }

    return check_each(records, check)


def _answer_text(answer: Any, where: str) -> str:
    if isinstance(answer, Mapping) and "answer" in answer:  # VQA v2's own files: {"answer", "answer_id", ...}
        answer = answer["answer"]
    return text_of(str(answer) if isinstance(answer, int | float) else answer, where)


def weighted_answers(annotation: Mapping[str, Any]) -> tuple[list[str], list[float]]:
    """Return the distinct answers, and for each the share of the people who gave it.

    >>> weighted_answers({"answer": ["red", "red", "blue", "red"]})
    (['red', 'blue'], [0.75, 0.25])

    In Visual Genome, where one person answers, every answer has `LONE_ANSWER_WEIGHT`.

    >>> weighted_answers({"answer": ["red"], "dataset": "vg"})
    (['red'], [0.2])
    """
    counts = Counter(annotation["answer"])
    if annotation.get("dataset") == "vg":
        return list(counts), [LONE_ANSWER_WEIGHT] * len(counts)
    total = len(annotation["answer"])
    return list(counts), [count / total for count in counts.values()]


@dataclass(eq=False, repr=False)
class VQADataset(BaseDataset):
    """Training items: an image, a question, its distinct answers and their weights.

    Items have lists "answers" and "weights"; a batch has LAVIS's concatenated "answer" and "weight".

    Args:
        weigh: returns the distinct answers of an annotation and their weights.

    Raises:
        AnnotationError: a question without an answer.
    """

    weigh: Callable[[Mapping[str, Any]], tuple[list[str], list[float]]] = weighted_answers

    def __post_init__(self) -> None:
        super().__post_init__()
        for annotation in self.annotations:
            if not annotation["answer"]:
                raise AnnotationError(
                    f"question {annotation['question_id']!r} ({annotation['question']!r}) has no answer; "
                    "questions to train on need one."
                )

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        answers, weights = self.weigh(annotation)
        return {
            self.media: self.read_media(annotation[self.media]),
            "text_input": self.text_processor(annotation["question"]),
            "answers": answers,
            "weights": weights,
            "instance_id": index,
        }

    def collater(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return one batch, with concatenated "answer" and "weight", and "n_answers" of each question."""
        others = [{k: v for k, v in sample.items() if k not in ("answers", "weights")} for sample in samples]
        weights = [weight for sample in samples for weight in sample["weights"]]
        return {
            **collate(others),
            "answer": [answer for sample in samples for answer in sample["answers"]],
            "weight": torch.tensor(weights, dtype=torch.float32),
            "n_answers": torch.tensor([len(sample["answers"]) for sample in samples]),
        }


@dataclass(eq=False, repr=False)
class VQAEvalDataset(BaseDataset):
    """Evaluation items: an image and a question, with people's answers as "references" if they are known.

    Args:
        answer_list: answers that a model ranks; None if it generates them.

    Attributes:
        further_keys: optional keys of an annotation that an item has, too.
    """

    answer_list: Sequence[str] | None = None
    further_keys: ClassVar[tuple[str, ...]] = ("question_type",)

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        return {
            self.media: self.read_media(annotation[self.media]),
            "text_input": self.text_processor(annotation["question"]),
            "question_id": annotation["question_id"],
            "instance_id": index,
            "references": annotation["answer"],
            f"{self.media}_path": str(self.image_root / annotation[self.media]),
            **{key: annotation.get(key) for key in self.further_keys},
        }


class AOKVQAEvalDataset(VQAEvalDataset):
    """A-OKVQA items, with the four choices and the index of the right one."""

    further_keys = ("question_type", "choices", "correct_choice_idx", "direct_answers")
