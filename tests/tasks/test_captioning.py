"""The captioning task by itself: what it refuses, what it computes of odd references."""

from __future__ import annotations

import pytest

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.tasks.base_task import BaseTask
from lavis_lite.tasks.captioning import CaptionTask


def task(**settings) -> CaptionTask:
    return CaptionTask(CaptionTask.Config(**{"metrics": ["BLEU", "ROUGE_L", "CIDEr"], **settings}))


def record(number: int, caption: str, *references: str) -> dict:
    return {
        "instance_id": number,
        "image_id": f"{number}.jpg",
        "caption": caption,
        "references": list(references),
    }


def test_references_without_a_word_have_no_score_but_a_reason_with_the_images(caplog):
    captioning = task(metric_tokenizer="python")
    metrics = captioning.compute_metrics([record(0, "a dog", "😀"), record(1, "a cat", "…")], "val")
    reason = "no reference holds a word to score against (0.jpg, 1.jpg)."
    assert metrics == {"unavailable": dict.fromkeys(["BLEU", "ROUGE_L", "CIDEr"], reason)}
    assert captioning.score(metrics) is None
    assert f"val: {reason}" in caplog.text


def test_one_image_without_a_word_in_its_references_scores_0_and_is_named(caplog):
    records = [record(0, "a dog", "😀"), record(1, "a cat", "a cat"), record(2, "a red car", "a blue car")]
    metrics = task(metric_tokenizer="python").compute_metrics(records, "val")
    assert metrics["references_without_words"] == [0]
    assert 0 < metrics["ROUGE_L"] < 2 / 3
    assert "the references of 1 images hold no word, so they score 0: 0.jpg" in caplog.text


def test_a_domain_without_a_word_has_no_numbers_of_its_own():
    records = [
        {**record(0, "a dog", "😀"), "domain": "near"},
        {**record(1, "a cat", "a cat"), "domain": "in"},
        {**record(2, "a red car", "a blue car"), "domain": "in"},
    ]
    metrics = task(metric_tokenizer="python").compute_metrics(records, "val")
    assert "in: CIDEr" in metrics and "near: CIDEr" not in metrics


@pytest.fixture
def no_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)


def test_without_java_a_best_metric_that_needs_it_is_refused_with_what_needs_none(no_java):
    with pytest.raises(
        ConfigError, match=r"METEOR cannot be computed here.*run.metrics=\[BLEU,ROUGE_L,CIDEr\]"
    ):
        task(metrics=["METEOR", "CIDEr"], best_metric="mean(METEOR, CIDEr)").check()


def test_without_java_its_tokenizer_is_refused_before_the_work(no_java):
    with pytest.raises(
        ConfigError, match=r"run.metric_tokenizer is java, but .* Or set run.metric_tokenizer=python"
    ):
        task(metric_tokenizer="java").check()


def test_a_best_metric_that_was_not_computed_scores_nothing():
    captioning = task(best_metric="CIDEr + Bleu_4")
    assert captioning.missing_metrics({"CIDEr": 1.0, "tokenizer": "ptb-python"}) == ["Bleu_4"]
    assert captioning.score({"CIDEr": 1.0}) is None
    assert captioning.score({"CIDEr": 1.0, "Bleu_4": 0.5}) == 1.5


def test_an_unreadable_best_metric_is_refused_by_every_task():
    with pytest.raises(ConfigError, match=r"run\.best_metric: "):
        BaseTask(BaseTask.Config(best_metric="accuracy -")).check()
