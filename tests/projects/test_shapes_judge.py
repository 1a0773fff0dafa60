"""The truth of drawn web captions judges a filter."""

from __future__ import annotations

import pytest

from shapes.judge import judge
from shapes.write_web import WebSettings, read_truth, write_web


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "drawn"
    return read_truth(write_web(folder, WebSettings(samples=200, samples_per_shard=100, drawn_size=32)))


def rows(truth, keep):
    return [
        {"key": key, "source": "web", "text": known.caption, "kept": keep(known)}
        for key, known in truth.items()
    ]


def test_a_filter_that_knows_the_truth_is_perfect(truth):
    figures = judge(rows(truth, lambda known: known.noise in ("clean", "half_right")), truth)["web"]
    assert figures["precision"] > 0.97 and figures["recall"] > 0.97 and figures["wrong_after"] < 0.02
    assert figures["wrong_before"] == pytest.approx(0.4, abs=0.1)


def test_a_filter_that_keeps_everything_recalls_nothing(truth):
    figures = judge(rows(truth, lambda known: True), truth)["web"]
    assert figures["recall"] == 0 and figures["kept"] == 200
    assert figures["wrong_after"] == figures["wrong_before"]


def test_a_filter_that_drops_everything_is_as_precise_as_the_web_is_wrong(truth):
    figures = judge(rows(truth, lambda known: False), truth)["web"]
    assert figures["recall"] == 1 and 0.3 < figures["precision"] < 0.7


def test_failed_samples_are_no_texts(truth):
    key = next(iter(truth))
    assert judge([{"key": key, "source": "", "text": None, "kept": False}], truth) == {}
