"""The page of a CapFilt run, opened in a real browser where there is one."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from cleaning import job_of
from pyarrow import Table, parquet
from shards import jpeg, write_tar
from tiers import find_browser

from lavis_lite.capfilt.output_reader import OutputReader
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.capfilt.workers import run_job
from lavis_lite.report.capfilt_report import write_capfilt_report

NASTY = '<script>document.title="broken"</script> & "quotes" ünï'


@pytest.fixture
def page(tmp_path) -> Path:
    """Four samples, the third of which keeps nothing, one text made to break a page."""
    texts = ["a red circle", NASTY, "dropped", "a star"]
    samples = [
        {"key": f"{n}", "jpg": jpeg(n), "txt": text.encode(), "json": b"{}"} for n, text in enumerate(texts)
    ]
    write_tar(tmp_path / "crawl" / "a.tar", samples)
    table = Table.from_pylist([{"key": f"{n}", "own": value} for n, value in enumerate((0.9, 0.8, 0.1, 0.7))])
    parquet.write_table(table, tmp_path / "own.parquet")
    settings = CapFiltSettings(
        captions_per_image=0,
        rule="own",
        scorers={"column": {"file": str(tmp_path / "own.parquet"), "column": "own"}},
    )
    output, _ = run_job(job_of(tmp_path / "crawl", tmp_path / "out", settings), show=False)
    return write_capfilt_report(output, {"web": {"precision": 0.95, "recall": 0.91}})


def test_the_page_shows_counts_scores_truth_and_every_sample_with_its_picture(page):
    text = page.read_text(encoding="utf-8")
    for said in ("a red circle", "dropped", "own 0.100", "own 0.1000 below 0.5000", "0.950", "Nothing kept"):
        assert said in text, said
    assert text.count("data:image/jpeg;base64,") >= 4
    assert "picture not available" not in text


def test_texts_reach_the_page_escaped(page):
    text = page.read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def cleaned(crawl: Path, output: Path, values: dict[str, float]) -> Path:
    """Clean a crawl by a column of numbers; return the output folder."""
    table = Table.from_pylist([{"key": key, "own": value} for key, value in values.items()])
    parquet.write_table(table, output.parent / "own.parquet")
    column = {"file": str(output.parent / "own.parquet"), "column": "own"}
    settings = CapFiltSettings(captions_per_image=0, rule="own", scorers={"column": column})
    return run_job(job_of(crawl, output, settings), show=False)[0].folder


def test_the_page_names_what_failed_was_set_aside_or_is_damaged(tmp_path):
    samples = [{"key": f"{n}", "jpg": jpeg(n), "txt": b"a text"} for n in range(2)]
    crawl = tmp_path / "crawl"
    write_tar(crawl / "a.tar", [*samples, {"key": "2", "jpg": b"<html>", "txt": b"a text"}])
    (crawl / "login.tar").write_bytes(b"<html>please sign in</html>")
    write_tar(crawl / "cut.tar", samples * 3)
    (crawl / "cut.tar").write_bytes((crawl / "cut.tar").read_bytes()[:5000])
    folder = cleaned(crawl, tmp_path / "out", {"0": 0.9, "1": 0.9})
    text = write_capfilt_report(OutputReader(folder), warnings=["look <here> first"]).read_text(
        encoding="utf-8"
    )
    assert "look &lt;here&gt; first" in text and "unreadable image" in text
    assert re.search(r"<td>login</td><td>set aside: .*login\.tar", text)
    assert str(crawl / "cut.tar") in text


def test_a_score_that_is_no_number_and_a_bad_picture_do_not_end_the_page(tmp_path):
    samples = [{"key": f"{n}", "jpg": jpeg(n), "txt": f"text {n}".encode()} for n in range(3)]
    write_tar(tmp_path / "crawl" / "a.tar", samples)
    values = {"0": float("nan"), "1": 0.1, "2": float("inf")}
    folder = cleaned(tmp_path / "crawl", tmp_path / "out", values)
    bad = {"key": "0", "jpg": jpeg(0)[:100], "txt": b"text 0"}
    write_tar(tmp_path / "crawl" / "a.tar", [bad, *samples[1:]])
    (folder / "done" / "broken.json").write_text("{")
    text = write_capfilt_report(OutputReader(folder)).read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") >= 2 and "own not scored" in text


def test_pictures_of_shards_of_equal_names_are_not_mixed_up(tmp_path):
    for number, name in enumerate(("x", "y")):
        write_tar(tmp_path / name / "a.tar", [{"key": "0", "jpg": jpeg(200 * number), "txt": b"dropped"}])
    folder = cleaned(tmp_path / "{x,y}" / "a.tar", tmp_path / "out", {"0": 0.1})
    pictures = re.findall(
        r"data:image/jpeg;base64,[^\"]+", write_capfilt_report(OutputReader(folder)).read_text()
    )
    assert len(set(pictures)) == 2


@pytest.mark.browser
def test_a_browser_shows_the_page(page, tmp_path):
    """Titles, pictures and charts as a person finds them; the nasty text has changed nothing."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    said = subprocess.run(
        [find_browser(), *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert "<title>CapFilt: out</title>" in said
    assert len(re.findall(r"<img src=\"data:image/jpeg", said)) >= 4
    assert len(re.findall(r"<svg", said)) == 1
    assert json.dumps("broken") not in said.split("<body>")[0]
