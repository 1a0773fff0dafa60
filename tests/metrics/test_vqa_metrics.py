"""The protocol of VQA v2 on known cases."""

from __future__ import annotations

import pytest

from lavis_lite.metrics.vqa import answer_accuracy, direct_answer_accuracy, normalize_answer, vqa_metrics


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("A dog", "dog"),
        ("Two", "2"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldntve", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("yes.", "yes"),
        ("3.5", "3.5"),
        ("1,000", "1000"),
        ("red/white", "red white"),
        ("red, white", "red white"),
        ("  the  man\nin the hat\t", "man in hat"),
        ("Let's go!", "let's go"),
    ],
)
def test_answers_are_compared_in_one_form(answer, normal):
    assert normalize_answer(answer) == normal


@pytest.mark.parametrize(
    ("agreeing", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_accuracy_leaves_each_person_out_in_turn(agreeing, accuracy):
    references = ["yes"] * agreeing + ["no"] * (10 - agreeing)
    assert answer_accuracy("Yes", references) == pytest.approx(accuracy)


def test_accuracy_is_reported_by_type():
    metrics = vqa_metrics(
        {1: "yes", 2: "2", 3: "blue"},
        {1: ["yes"] * 10, 2: ["3"] * 10, 3: ["blue"] * 3 + ["red"] * 7},
        answer_types={1: "yes/no", 2: "number", 3: "other"},
    )
    assert metrics["agg_metrics"] == pytest.approx((100 + 0 + 90) / 3)
    assert metrics["yes/no"] == 100.0
    assert metrics["number"] == 0.0
    assert metrics["other"] == pytest.approx(90.0)


def test_a_direct_answer_needs_three_people():
    assert direct_answer_accuracy("cat", ["cat"] * 3 + ["dog"]) == 1.0
    assert direct_answer_accuracy("cat", ["cat", "dog"]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("agreeing", "people", "accuracy"),
    [
        (1, 1, 1.0),
        (0, 1, 0.0),
        (1, 2, 1.0),
        (1, 3, 1.0),
        (1, 5, 2 / 3),
        (2, 5, 1.0),
        (2, 9, 2 / 2.7),
        (9, 9, 1.0),
    ],
)
def test_of_fewer_than_ten_people_three_tenths_must_agree_and_at_least_one(agreeing, people, accuracy):
    references = ["yes"] * agreeing + ["no"] * (people - agreeing)
    assert answer_accuracy("yes", references) == pytest.approx(accuracy)


@pytest.mark.parametrize(("answer", "reference"), [("the dog", "The dog"), ("2", "Two"), ("red", "Red.")])
def test_a_lone_reference_is_compared_in_the_form_of_the_answer(answer, reference):
    assert vqa_metrics({1: answer}, {1: [reference]}) == {"agg_metrics": 100.0}
