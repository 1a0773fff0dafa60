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
from lavis_lite.datasets.annotations import AnnotationError, read_records
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder
from lavis_lite.datasets.vqa import AOKVQAEvalDataset, VQADataset, VQAEvalDataset, check_questions


class VQABuilder(BaseDatasetBuilder):
    """A training split may have several files; an evaluation split has questions, then a list of answers."""

    train_dataset_cls = VQADataset
    eval_dataset_cls = VQAEvalDataset

    @dataclass
    class Config(BaseDatasetBuilder.Config):
        """Settings of a data set of questions.

        Attributes:
            answer_list: file with the answers that a model may choose from, a JSON list of texts, in
                place of an evaluation split's second file.
        """

        answer_list: str | None = None

    config: Config

    def build(self, split: str) -> Dataset:
        """Return one split.

        Raises:
            ConfigError: no such split, or files that are not there; says what to set.
            AnnotationError: a record that cannot be used.
        """
        self.check_split(split)
        files = self.annotation_files(split)
        root = self.image_root()
        is_train = split == "train"
        records = self.read(files if is_train else files[:1], is_train)
        records, missing = self.locate_images(records, root, split)
        dataset = self._train(records, root) if is_train else self._evaluation(records, root, files)
        dataset.missing_images = missing
        return dataset

    def _train(self, records: list[dict[str, Any]], root: Path) -> VQADataset:
        return self.train_dataset_cls(records, root, *self.processors(True))

    def _evaluation(self, records: list[dict[str, Any]], root: Path, files: list[Path]) -> VQAEvalDataset:
        if len(files) > 3:  # VQA's own questions and annotations, by which the official scripts judge
            people = read_official_answers(files[3])
            records = [{**r, "answer": people.get(r["question_id"], r["answer"])} for r in records]
        answers = resolve(self.config.answer_list) if self.config.answer_list else None
        if answers is None and len(files) > 1:
            answers = files[1]
        return self.eval_dataset_cls(
            records, root, *self.processors(False), answer_list=read_answers(answers)
        )

    def read(self, files: list[Path], is_train: bool) -> list[dict[str, Any]]:
        """Return the checked questions of all files."""
        media = self.train_dataset_cls.media
        return [record for path in files for record in check_questions(read_records(path), media)]


def read_answers(path: Path | None) -> list[str] | None:
    """Return the answers that a model may choose from, or None without a file.

    Raises:
        AnnotationError: neither a list of texts nor an object keyed by them.
    """
    if path is None:
        return None
    answers = _read_json(path)
    if isinstance(answers, dict):  # some data sets number their answers
        answers = list(answers)
    if not isinstance(answers, list) or not answers or not all(isinstance(text, str) for text in answers):
        raise AnnotationError(f"{path}: expected a list of answers, each a text.")
    return list(dict.fromkeys(answers))


def read_official_answers(path: Path) -> dict[int, list[str]]:
    """Return question id -> what people answered, of VQA's own file of annotations.

    Raises:
        AnnotationError: not such a file.
    """
    try:
        annotations = _read_json(path)["annotations"]
        return {
            annotation["question_id"]: [answer["answer"] for answer in annotation["answers"]]
            for annotation in annotations
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

    def read(self, files: list[Path], is_train: bool) -> list[dict[str, Any]]:
        """Return the checked questions, marked as answered by one person."""
        return [{**record, "dataset": "vg"} for record in super().read(files, is_train)]


@registry.register_builder("ok_vqa")
class OKVQABuilder(VQABuilder):
    """Questions that need outside knowledge."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "ok_vqa"}


@registry.register_builder("aok_vqa")
class AOKVQABuilder(VQABuilder):
    """Questions that need knowledge and reasoning, with four choices."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "aok_vqa"}
    eval_dataset_cls = AOKVQAEvalDataset
