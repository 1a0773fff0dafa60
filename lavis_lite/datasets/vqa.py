"""Questions about images: items of training and of evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lavis_lite.datasets.annotations import AnnotationError, Records, check_each, image_of, text_of, value_of
from lavis_lite.datasets.base_dataset import BaseDataset, Processor, collate

# What an answer of Visual Genome weighs: one person gave it (BLIP's code).
LONE_ANSWER_WEIGHT = 0.2
ANSWER_KEYS = ("answer", "answers", "direct_answers")


def check_questions(records: Records, media: str = "image") -> list[dict[str, Any]]:
    """Return `records` with "question", a path under `media`, "question_id", and "answer" as a list of texts.

    An unanswered question (of a test split) has none.

    Raises:
        AnnotationError: names file, place and key of the errors.
    """
    count = 0

    def check(record: Mapping[str, Any], where: str) -> dict[str, Any]:
        nonlocal count
        count += 1
        answers = value_of(record, ANSWER_KEYS, where, required=False)
        answers = answers if isinstance(answers, list) else [answers]
        return {
            **record,
            media: image_of(value_of(record, (media,), where), where),
            "question": text_of(value_of(record, ("question",), where), f"{where}, key 'question'"),
            "question_id": record.get("question_id", count - 1),
            "answer": [_answer(answer, f"{where}, key 'answer'") for answer in answers],
        }

    return check_each(records, check)


def _answer(answer: Any, where: str) -> str:
    if isinstance(answer, Mapping) and "answer" in answer:  # VQA v2's own files: {"answer", "answer_id", ...}
        answer = answer["answer"]
    return text_of(str(answer) if isinstance(answer, int | float) else answer, where)


def weighted_answers(annotation: Mapping[str, Any]) -> tuple[list[str], list[float]]:
    """Return the distinct answers, and for each the share of the people who gave it.

    >>> weighted_answers({"answer": ["red", "red", "blue", "red"]})
    (['red', 'blue'], [0.75, 0.25])

    One answer alone, of a set that asks one person, weighs less (`LONE_ANSWER_WEIGHT`).

    >>> weighted_answers({"answer": ["red"], "dataset": "vg"})
    (['red'], [0.2])
    """
    counts = Counter(annotation["answer"])
    if annotation.get("dataset") == "vg":
        return list(counts), [LONE_ANSWER_WEIGHT] * len(counts)
    total = len(annotation["answer"])
    return list(counts), [count / total for count in counts.values()]


class QuestionMedia(BaseDataset):
    """Where a question's image comes from; data sets of videos replace it."""

    media = "image"

    def media_of(self, annotation: Mapping[str, Any]) -> torch.Tensor:
        """Return the processed image of a question."""
        return self.vis_processor(self.open_image(annotation["image"]))


class VQADataset(QuestionMedia):
    """Training items: an image, a question, its distinct answers and what each weighs.

    Raises:
        AnnotationError: a question without an answer.
    """

    def __init__(
        self,
        annotations: Sequence[Mapping[str, Any]],
        image_root: Path,
        vis_processor: Processor,
        text_processor: Processor,
        weigh: Callable[[Mapping[str, Any]], tuple[list[str], list[float]]] = weighted_answers,
    ) -> None:
        super().__init__(annotations, image_root, vis_processor, text_processor)
        self.weigh = weigh
        for annotation in annotations:
            if not annotation["answer"]:
                raise AnnotationError(
                    f"question {annotation['question_id']!r} ({annotation['question']!r}) has no answer; "
                    "questions to train on need one."
                )

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        answers, weights = self.weigh(annotation)
        return {
            self.media: self.media_of(annotation),
            "text_input": self.text_processor(annotation["question"]),
            "answers": answers,
            "weights": weights,
            "instance_id": index,
        }

    def collater(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return one batch; "answer" and "weight" end to end, "n_answers" how many each question has."""
        plain = [{k: v for k, v in sample.items() if k not in ("answers", "weights")} for sample in samples]
        weights = [weight for sample in samples for weight in sample["weights"]]
        return {
            **collate(plain),
            "answer": [answer for sample in samples for answer in sample["answers"]],
            "weight": torch.tensor(weights, dtype=torch.float32),
            "n_answers": torch.tensor([len(sample["answers"]) for sample in samples]),
        }


class VQAEvalDataset(QuestionMedia):
    """Evaluation items: an image and a question, with what people answered where it is known.

    Args:
        answer_list: what a model may choose from; None where it must say freely.
    """

    # Of a record, what an item carries along where it is there.
    further_keys: tuple[str, ...] = ("question_type",)

    def __init__(
        self,
        annotations: Sequence[Mapping[str, Any]],
        image_root: Path,
        vis_processor: Processor,
        text_processor: Processor,
        answer_list: Sequence[str] | None = None,
    ) -> None:
        super().__init__(annotations, image_root, vis_processor, text_processor)
        self.answer_list = answer_list

    def __getitem__(self, index: int) -> dict[str, Any]:
        annotation = self.annotations[index]
        return {
            self.media: self.media_of(annotation),
            "text_input": self.text_processor(annotation["question"]),
            "question_id": annotation["question_id"],
            "instance_id": index,
            "references": annotation["answer"],
            f"{self.media}_path": str(self.image_root / annotation[self.media]),
            **{key: annotation.get(key) for key in self.further_keys},
        }


class AOKVQAEvalDataset(VQAEvalDataset):
    """A-OKVQA: four choices besides, and which of them is right."""

    further_keys = ("question_type", "choices", "correct_choice_idx", "direct_answers")
