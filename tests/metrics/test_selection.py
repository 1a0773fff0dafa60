"""The number that a run is judged by."""

import pytest

from lavis_lite.metrics.selection import main_metric, metric_names_in

SCORES = {"CIDEr": 1.2, "Bleu_4": 0.4, "METEOR": 0.3, "ROUGE_L": 0.6, "txt_r1": 50.0}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("CIDEr", 1.2),
        ("CIDEr + Bleu_4", 1.6),
        ("CIDEr+Bleu_4 +METEOR", 1.9),
        ("mean(METEOR, ROUGE_L, CIDEr)", 0.7),
        (" mean( CIDEr ) ", 1.2),
        ("txt_r1", 50.0),
    ],
)
def test_a_metric_a_sum_and_a_mean_have_their_values(expression, value):
    assert main_metric(SCORES, expression) == pytest.approx(value)


def test_names_come_in_the_order_written():
    assert metric_names_in("mean(ROUGE_L, CIDEr)") == ["ROUGE_L", "CIDEr"]
    assert metric_names_in("CIDEr + Bleu_4") == ["CIDEr", "Bleu_4"]


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"'CIDer'.*Did you mean CIDEr"):
        main_metric(SCORES, "CIDer + Bleu_4")


def test_a_name_is_matched_exactly_and_never_in_part():
    with pytest.raises(ValueError, match="there is no 'Bleu'"):
        main_metric(SCORES, "Bleu")


@pytest.mark.parametrize(
    "expression",
    ["", " ", "+", "CIDEr +", "+ CIDEr", "CIDEr Bleu_4", "CIDEr - Bleu_4", "CIDEr*2", "mean()", "mean(CIDEr",
     "mean(CIDEr,)", "mean(CIDEr) + Bleu_4", "max(CIDEr, Bleu_4)", "CIDEr, Bleu_4", "CIDEr; import os"],
)  # fmt: skip
def test_anything_else_is_refused_with_what_can_be_written(expression):
    with pytest.raises(ValueError, match=r"cannot be read\. Write a metric"):
        metric_names_in(expression)


def test_a_metric_named_twice_is_refused():
    with pytest.raises(ValueError, match="names CIDEr twice"):
        main_metric(SCORES, "CIDEr + CIDEr")
