"""The truth of drawn web captions judges a filter."""

from __future__ import annotations

import json
import re

import pytest

from shapes.judge import judge, main
from shapes.write_web import WebSettings, read_truth


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "drawn"
    return read_truth(WebSettings(samples=200, samples_per_shard=100, drawn_size=32).draw(folder))


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


def test_the_script_reads_an_output_folder_and_writes_what_a_report_shows(truth, tmp_path, capsys):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    drawn = WebSettings(samples=200, samples_per_shard=100, drawn_size=32).draw(tmp_path / "drawn")
    table = pyarrow.Table.from_pylist(rows(truth, lambda known: known.clean))
    (tmp_path / "cleaned" / "scores").mkdir(parents=True)
    parquet.write_table(table, tmp_path / "cleaned" / "scores" / "a.parquet")
    figures = tmp_path / "figures.json"
    main([str(tmp_path / "cleaned"), "--truth", str(drawn), "--output", str(figures)])
    assert json.loads(figures.read_text())["web"]["texts"] == 200
    assert re.search(r"^recall +1\.000$", capsys.readouterr().out, re.M)


@pytest.mark.parametrize("damaged", [False, True])
def test_the_script_refuses_another_folder_in_one_line(damaged, truth, tmp_path, capsys):
    if damaged:
        (tmp_path / "scores").mkdir()
        (tmp_path / "scores" / "a.parquet").write_bytes(b"PAR1")
    (tmp_path / "truth.jsonl").write_text("")
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--truth", str(tmp_path)])
    message = capsys.readouterr().err.splitlines()[-1]
    assert ("cannot be read as Parquet" if damaged else "not a capfilt output folder") in message
