"""Questions about images: VQA v2, Visual Genome, OK-VQA and A-OKVQA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch.utils.data import Dataset

from lavis_lite.common.files import FileError, read_json
from lavis_lite.common.registry import registry
from lavis_lite.common.storage.cache import resolve
from lavis_lite.datasets.annotations import AnnotationError, Records
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder
from lavis_lite.datasets.vqa import AOKVQAEvalDataset, VQADataset, VQAEvalDataset, check_questions


class VQABuilder(BaseDatasetBuilder):
    """Training splits may have several files of questions.

    The files of an evaluation split are the questions, then optionally a list of answers to choose from,
    and VQA's own questions and annotations.
    """

    train_dataset_cls: ClassVar[type[VQADataset]] = VQADataset
    eval_dataset_cls: ClassVar[type[VQAEvalDataset]] = VQAEvalDataset

    @dataclass
    class Config(BaseDatasetBuilder.Config):
        """Settings of a data set of questions.

        Attributes:
            answer_list: file with the answers that a model may choose from, a JSON list of texts, instead
                of the second file of an evaluation split.
        """

        answer_list: str | None = None

    config: Config

    def build(self, split: str) -> Dataset[Any]:
        """Return one split.

        Raises:
            ConfigError: no such split, or missing files; says what to set.
            AnnotationError: a record that cannot be used.
        """
        dataset = super().build(split)
        if isinstance(dataset, VQAEvalDataset):
            answers = [resolve(self.config.answer_list)] if self.config.answer_list else []
            answers += self.annotation_files(split)[1:2]
            dataset.answer_list = read_answers(answers[0]) if answers else None
        return dataset

    def read(self, files: list[Path], is_train: bool) -> list[dict[str, Any]]:
        """Return the checked questions, with the official answers of an evaluation split that has them."""
        records = super().read(files if is_train else files[:1], is_train)
        if not is_train and len(files) > 3:
            answers = read_official_answers(files[3])
            records = [{**r, "answer": answers.get(r["question_id"], r["answer"])} for r in records]
        return records

    def check_records(self, records: Records, is_train: bool) -> list[dict[str, Any]]:
        """Return records with an image or video, "question", "question_id" and "answer"."""
        return check_questions(records, self.train_dataset_cls.media)


def read_answers(path: Path) -> list[str]:
    """Return the answers that a model may choose from.

    Raises:
        AnnotationError: neither a list of texts nor an object keyed by them.
    """
    answers = _read_json(path)
    if isinstance(answers, dict):  # some data sets number their answers
        answers = list(answers)
    if not isinstance(answers, list) or not answers or not all(isinstance(text, str) for text in answers):
        raise AnnotationError(f"{path}: expected a list of answers, each a text.")
    return list(dict.fromkeys(answers))


def read_official_answers(path: Path) -> dict[int, list[str]]:
    """Return question id -> answers of VQA's own file of annotations.

    Raises:
        AnnotationError: not such a file.
    """
    try:
        return {
            annotation["question_id"]: [answer["answer"] for answer in annotation["answers"]]
            for annotation in _read_json(path)["annotations"]
        }
    except (KeyError, TypeError) as error:
        raise AnnotationError(
            f"{path}: is no file of VQA's annotations ({type(error).__name__}: {error}); expected "
            '{"annotations": [{"question_id", "answers": [{"answer"}]}]}.'
        ) from error


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except FileError as error:
        raise AnnotationError(str(error)) from error


@registry.register_builder("coco_vqa")
class COCOVQABuilder(VQABuilder):
    """VQA v2: questions about COCO, each answered by ten people."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "coco_vqa", "eval": "coco_vqa"}


@registry.register_builder("vg_vqa")
class VGVQABuilder(VQABuilder):
    """Questions about Visual Genome, each answered by one person; only to train on."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "vg_vqa"}

    def check_records(self, records: Records, is_train: bool) -> list[dict[str, Any]]:
        """Return the checked questions, marked as answered by one person."""
        return [{**record, "dataset": "vg"} for record in super().check_records(records, is_train)]


@registry.register_builder("ok_vqa")
class OKVQABuilder(VQABuilder):
    """Questions that need outside knowledge."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "ok_vqa"}


@registry.register_builder("aok_vqa")
class AOKVQABuilder(VQABuilder):
    """Questions that need knowledge and reasoning, with four choices."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "aok_vqa"}
    eval_dataset_cls = AOKVQAEvalDataset
