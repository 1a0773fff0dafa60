"""What would go wrong after hours is said before the first step; and nothing of the rehearsal stays."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from conftest import RunFile
from runs import assert_identical, final_checkpoint
from torch.utils.data import Dataset

from lavis_lite.commands.launch import launch
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import registry
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.runners.rehearsal import check_output
from lavis_lite.runners.runner_base import RunnerBase

VQA = {"train_images": 8, "val_images": 2, "test_images": 2, "drawn_size": 32}


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Take away what a run in this process adds to the root logger."""
    before = logging.getLogger().handlers[:]
    yield
    for handler in [handler for handler in logging.getLogger().handlers if handler not in before]:
        logging.getLogger().removeHandler(handler)
        handler.close()


def train(run_file: RunFile, *options: str, **settings: Any) -> RunFolder:
    return launch(str(run_file.write(**settings)), options, [], evaluate_only=False)


def refused(run_file: RunFile, *options: str, **settings: Any) -> str:
    """Return what is said to a run that is refused before its first step."""
    with pytest.raises(ConfigError) as error:
        train(run_file, *options, **settings)
    assert not list((run_file.output / "checkpoints").glob("*"))
    assert "\n" not in str(error.value)
    return str(error.value)


def run_log(run_file: RunFile) -> str:
    return (run_file.output / "run.log").read_text(encoding="utf-8")


@registry.register_runner("unrehearsed")
class Unrehearsed(RunnerBase):
    def rehearse(self) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "data"), [("blip_caption", None), ("blip_retrieval", "shapes_retrieval")])
def test_a_rehearsal_changes_nothing_in_the_run(run_file, arch, data, tmp_path):
    """Weights, momentum copies, queues, generators, metrics: bit for bit."""
    if data is not None:
        run_file.sections["model"] |= {"arch": arch, "queue_size": 8}
        run_file.sections["datasets"] = {data: {**VQA, "folder": str(tmp_path / "drawn")}}
        for key in ("num_beams", "max_len", "min_len", "metrics", "metric_tokenizer", "best_metric"):
            run_file.sections["run"].pop(key)
        run_file.sections["run"]["task"] = "retrieval"
    settings = {"max_epoch": 1, "batch_size_train": 4}
    contents = []
    for runner in ("runner_base", "unrehearsed"):
        train(run_file, runner=runner, output_dir=str(tmp_path / runner), **settings)
        contents.append({**final_checkpoint(tmp_path / runner), "config": {}})
    assert_identical(*contents)


def test_a_data_set_of_another_task_is_refused_with_that_task(run_file, tmp_path):
    run_file.sections["datasets"] = {"shapes_vqa": {**VQA, "folder": str(tmp_path / "vqa")}}
    said = refused(run_file)
    assert said.startswith("split 'train' of shapes_vqa: the task captioning does not read such samples")
    assert "n_answers" in said and "set run.task=vqa" in said


def test_a_data_set_that_only_the_evaluation_cannot_use_is_refused(run_file, tmp_path):
    run_file.sections["datasets"] = {"shapes_retrieval": {**VQA, "folder": str(tmp_path / "pairs")}}
    said = refused(run_file)
    assert said.startswith("split 'val' of shapes_retrieval: the results")
    assert "needs 'image_id'" in said and "the data set gives" in said


def test_captions_given_to_a_model_that_answers_name_the_missing_key(run_file):
    run_file.sections["model"]["arch"] = "blip_vqa"
    for key in ("metrics", "metric_tokenizer", "best_metric"):
        run_file.sections["run"].pop(key)
    said = refused(run_file, task="vqa")
    assert "split 'train' of shapes_caption: the task vqa needs 'answer'" in said
    assert "set run.task=captioning" in said


def test_data_sets_that_cannot_stand_in_one_batch_are_refused(run_file):
    @registry.register_builder("with_a_url")
    class WithUrl(registry.get_builder_class("shapes_caption")):
        def build(self, split: str) -> Dataset:
            dataset = super().build(split)
            return _with_key(dataset, "url", "here") if split == "train" else dataset

    run_file.sections["datasets"]["with_a_url"] = run_file.sections["datasets"]["shapes_caption"]
    said = refused(run_file)
    assert "cannot stand in one batch" in said and "run.train_dataset_ratios" in said


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("text_input", None, "the key 'text_input' of sample"),
        ("image", torch.zeros(3, 16, 16), "the model takes 32 x 32 pixels but the images have 16 x 16"),
    ],
)
def test_a_sample_that_the_model_cannot_read_is_named(run_file, workers, key, value, message):
    name = f"broken_{key}_{workers}"

    @registry.register_builder(name)
    class Broken(registry.get_builder_class("shapes_caption")):
        def build(self, split: str) -> Dataset:
            return _with_key(super().build(split), key, value)

    run_file.sections["datasets"] = {name: run_file.sections["datasets"]["shapes_caption"]}
    said = refused(run_file, num_workers=workers)
    assert said.startswith(f"split 'train' of {name}: ") and message in said


def test_an_error_in_a_data_set_of_ones_own_comes_with_its_place(run_file):
    @registry.register_builder("failing")
    class Failing(registry.get_builder_class("shapes_caption")):
        def build(self, split: str) -> Dataset:
            dataset = super().build(split)
            dataset.text_processor = _fails
            return dataset

    run_file.sections["datasets"] = {"failing": run_file.sections["datasets"]["shapes_caption"]}
    said = refused(run_file, num_workers=1)
    assert "a sample cannot be read: ZeroDivisionError: " in said and "(test_rehearsal.py, line" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["run.max_len=65"], "run.max_len: 65 tokens are more than the 64 positions of the text model"),
        (["run.max_len=3"], "run.max_len: 3 tokens leave no room after the prompt"),
        (["run.min_len=13"], "run.min_len: 13 tokens are more than run.max_len (12) allows"),
        (["model.max_txt_len=65"], "model.max_txt_len: 65 tokens are more than the 64 positions"),
        (["run.best_metric=CIDEr +"], "run.best_metric: "),
    ],
)
def test_lengths_that_do_not_fit_the_model_are_refused(run_file, options, message):
    assert refused(run_file, *options).startswith(message)


def test_questions_without_a_list_of_answers_are_refused_before_training(run_file, tmp_path):
    run_file.sections["model"]["arch"] = "blip_vqa"
    run_file.sections["datasets"] = {"shapes_vqa": {**VQA, "folder": str(tmp_path / "vqa")}}
    for key in ("metrics", "metric_tokenizer", "best_metric"):
        run_file.sections["run"].pop(key)

    @registry.register_builder("no_answers")
    class NoAnswers(registry.get_builder_class("shapes_vqa")):
        def build(self, split: str) -> Dataset:
            dataset = super().build(split)
            dataset.answer_list = None
            return dataset

    run_file.sections["datasets"] = {"no_answers": run_file.sections["datasets"]["shapes_vqa"]}
    said = refused(run_file, task="vqa")
    assert "run.inference_method is rank, but the data set has no list of answers" in said


def test_texts_that_are_cut_or_unknown_and_batches_larger_than_the_data_are_said(run_file):
    @registry.register_builder("long_and_unknown")
    class LongAndUnknown(registry.get_builder_class("shapes_caption")):
        def build(self, split: str) -> Dataset:
            dataset = copy.copy(super().build(split))
            dataset.annotations = [
                {**a, "caption": ["a red circle " * 30, "смешной кот"]} for a in dataset.annotations
            ]
            return dataset

    run_file.sections["datasets"] = {"long_and_unknown": run_file.sections["datasets"]["shapes_caption"]}
    train(run_file, max_epoch=1, batch_size_train=64, valid_splits=[], test_splits=[])
    said = run_log(run_file)
    assert "40 of the first 80 texts are longer than model.max_txt_len (40 tokens)" in said
    assert "40 of the first 80 texts are longer than max_words of the text processor (50 words)" in said
    assert "40 of the first 80 texts have words that are not in the vocabulary and are read as [UNK]" in said
    assert "a batch of all processes holds 64 samples, but there are only 40" in said


@pytest.mark.slow
def test_references_without_a_word_are_refused_where_the_best_is_to_be_found(run_file):
    @registry.register_builder("emoji")
    class Emoji(registry.get_builder_class("shapes_caption")):
        def build(self, split: str) -> Dataset:
            dataset = copy.copy(super().build(split))
            if split == "val":
                dataset.annotations = [{**dataset.annotations[0], "caption": ["😀"]}]
            return dataset

    run_file.sections["datasets"] = {"emoji": run_file.sections["datasets"]["shapes_caption"]}
    said = refused(run_file)
    assert said.startswith("split 'val' of emoji: run.best_metric is 'CIDEr', but there is no CIDEr.")
    assert "no reference holds a word" in said and ".jpg" in said
    assert "CIDEr of one image is 0 whatever the caption" in run_log(run_file)


def test_a_disk_without_room_for_a_checkpoint_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"left, but a checkpoint of this run takes about 953674316.4 GiB"):
        check_output(RunFolder(tmp_path), checkpoint_bytes=1024 * 10**15, kept=2)


def test_an_output_folder_that_cannot_be_written_to_is_said(tmp_path):
    (tmp_path / "checkpoints").write_text("a file, where a folder belongs")
    with pytest.raises(ConfigError, match="checkpoints cannot be written to"):
        check_output(RunFolder(tmp_path), checkpoint_bytes=1, kept=2)


class _WithKey(Dataset):
    """A data set whose samples have one key set to a value."""

    def __init__(self, dataset: Any, key: str, value: Any) -> None:
        self.dataset, self.key, self.value = dataset, key, value

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.dataset[index], self.key: self.value}


def _with_key(dataset: Any, key: str, value: Any) -> Dataset:
    return _WithKey(dataset, key, value)


def _fails(text: str) -> str:
    return str(1 // 0)
