"""The filter's decision, apart from any model."""

from __future__ import annotations

import pytest
from pyarrow import Table, parquet

from lavis_lite.capfilt.score_tables import with_threshold
from lavis_lite.capfilt.selection import Candidate, select
from lavis_lite.capfilt.settings import CapFiltSettings, SelectionSettings
from lavis_lite.common.config.schema import ConfigError, parse

WEB = Candidate("a red circle", "web", {"itm": 0.7, "itc": 0.1})
MADE = Candidate("two blue stars", "synthetic", {"itm": 0.4, "itc": 0.3})


def kept(samples, **settings) -> list[list[str]]:
    judged = select(samples, SelectionSettings(**settings))
    return [[candidate.text for candidate in candidates if candidate.kept] for candidates in judged]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [["a red circle"]]),
        ({"threshold": 0.3}, [["a red circle", "two blue stars"]]),
        ({"rule": "itc", "threshold": 0.2}, [["two blue stars"]]),
        ({"rule": "itm+itc", "threshold": 0.75}, [["a red circle"]]),
        ({"rule": "best"}, [["a red circle"]]),
        ({"rule": "best", "score": "itc"}, [["two blue stars"]]),
        ({"rule": "clip", "threshold": -9.0}, [[]]),
        ({"rule": "fraction", "fraction": 0.5}, [["a red circle"]]),
        ({"threshold": 0.9}, [[]]),
        ({"threshold": 0.9, "filtered": "web"}, [["two blue stars"]]),
        ({"threshold": 0.9, "filtered": "synthetic"}, [["a red circle"]]),
        ({"threshold": 0.9, "filtered": "none"}, [["a red circle", "two blue stars"]]),
        ({"min_words": 4}, [[]]),
    ],
)
def test_a_rule_keeps_what_it_says(settings, expected):
    assert kept([[WEB, MADE]], **settings) == expected


def test_every_text_that_is_dropped_says_why():
    (judged,) = select([[WEB, MADE]], SelectionSettings(threshold=0.5))
    assert [candidate.reason for candidate in judged] == ["", "itm 0.4000 below 0.5000"]


def test_of_equal_texts_the_first_is_kept():
    again = Candidate("A red  circle!", "synthetic", {"itm": 0.9, "itc": 0.9})
    (judged,) = select([[WEB, again]], SelectionSettings())
    assert [candidate.kept for candidate in judged] == [True, False]
    assert judged[1].reason == "repeats another text"
    assert kept([[WEB, again]], drop_repeats=False) == [["a red circle", "A red  circle!"]]


def test_of_texts_that_pass_and_are_nearly_equal_the_first_is_kept():
    texts = {"a big red circle": 0.4, "the big red circle": 0.9, "one big red circle here": 0.8, "a cat": 0.9}
    sample = [Candidate(text, "synthetic", {"itm": value}) for text, value in texts.items()]
    assert kept([sample], near_repeats=0.5) == [["the big red circle", "a cat"]]
    assert len(kept([sample])[0]) == 3


def test_texts_with_an_unwanted_pattern_are_dropped():
    advert = Candidate("Click here: www.shop.example", "web", {"itm": 0.9})
    (judged,) = select([[advert, WEB]], SelectionSettings(drop_patterns=["click (here|to)"]))
    assert [candidate.reason for candidate in judged] == ["has click (here|to)", ""]


def test_the_best_fraction_is_of_a_whole_shard():
    samples = [[Candidate(f"text {n}", "web", {"itm": n / 10})] for n in range(10)]
    assert sum(map(len, kept(samples, rule="fraction", fraction=0.3))) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fraction": 0}, "fraction"),
        ({"min_words": 9, "max_words": 3}, "min_words"),
        ({"batch_size": 0}, "batch_size: must be at least 1"),
        ({"scorers": {}}, "name at least one"),
        ({"best_synthetic": 0}, "best_synthetic"),
        ({"near_repeats": 0.0}, "near_repeats"),
        ({"drop_patterns": ["("]}, "drop_patterns: '\\(' is not a regular expression"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        parse(CapFiltSettings, settings, where="capfilt")


def test_of_the_synthetic_texts_that_pass_the_best_are_kept():
    """Best 2 of 4 candidates by a score; the web's text stands apart."""
    made = [Candidate(f"text {n}", "synthetic", {"itm": 0.5 + n / 10, "itc": -n}) for n in range(4)]
    assert kept([[WEB, *made]], best_synthetic=2) == [["a red circle", "text 2", "text 3"]]
    assert kept([[WEB, *made]], best_synthetic=1, score="itc") == [["a red circle", "text 0"]]
    (judged,) = select([made], SelectionSettings(best_synthetic=2))
    assert judged[0].reason == "not among the best 2"


def test_a_rule_that_asks_for_a_score_which_nobody_gives_is_refused():
    with pytest.raises(ConfigError, match=r"rule: no scorer gives 'imt'. Did you mean itm"):
        SelectionSettings(rule="itc+imt").check_scores(["itm", "itc"])


def test_the_threshold_is_what_most_true_pairs_reach(tmp_path):
    """Of twenty texts that match, nineteen pass at 0.95, whatever the scale of the scores."""
    rows = [
        {"shard": "a", "key": f"{n}", "url": None, "source": "web", "text": "t", "itm": 0.5, "itc": n / 100}
        | {"kept": True, "reason": ""}
        for n in range(20)
    ]
    parquet.write_table(Table.from_pylist(rows), tmp_path / "true.parquet")
    settings = SelectionSettings(rule="itm + 2*itc", reference=str(tmp_path / "true.parquet"))
    assert with_threshold(settings).threshold == pytest.approx(0.52)
    with pytest.raises(ConfigError, match=r"no texts that are scored by 'clip'"):
        with_threshold(SelectionSettings(rule="clip", reference=str(tmp_path / "true.parquet")))
    with pytest.raises(ConfigError, match=r"nowhere.parquet: no such file. Score pairs"):
        with_threshold(SelectionSettings(reference="nowhere.parquet"))
