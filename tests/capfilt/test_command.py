"""The command line of CapFilt: exit status, what it says at the end, and how it stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from cleaning import clean, contents, job_of, json_of, settings_of
from processes import REPOSITORY, run
from shards import jpeg, write_shards, write_tar

from lavis_lite import load_model
from lavis_lite.capfilt.output_reader import CapFiltError, OutputReader
from lavis_lite.capfilt.score_tables import refilter
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.capfilt.summary import Totals, status_lines, warnings_about
from lavis_lite.capfilt.workers import Worker, open_output
from lavis_lite.common.config.schema import ConfigError, parse
from lavis_lite.common.files import FileError
from lavis_lite.common.signals import exit_on_signals


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "filter.pth"
    return load_model("blip_image_text_matching", "tiny").save_salesforce(path)


def command(crawl: Path, output: Path, weights: Path) -> list[str]:
    words = [sys.executable, "-m", "lavis_lite", "capfilt", "run", str(crawl), "-o", str(output)]
    words += ["--filter-type", "tiny", "--filter", str(weights), "--device", "cpu", "--options"]
    return [*words, "captions_per_image=0", "threshold=0.0", "batch_size=4"]


def test_a_log_in_page_in_place_of_a_shard_is_said_and_the_exit_status_is_1(weights, tmp_path):
    crawl = write_shards(tmp_path / "crawl", [2])
    (crawl / "login.tar").write_bytes(b"<html>please sign in</html>")
    said = run(command(crawl, tmp_path / "out", weights))
    assert said.returncode == 1
    assert "1 shards done, 1 set aside" in said.stdout
    assert "login: set aside, the same command tries it again: " in said.stdout
    assert "Traceback" not in said.stderr
    other = run([*command(crawl, tmp_path / "out", weights), "min_words=2"])
    assert other.returncode == 1 and "settings.min_words was 1 and is now 2" in other.stderr
    assert len(other.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_process_group_ends_the_run_and_the_same_command_continues(
    number, code, weights, tmp_path
):
    crawl = write_shards(tmp_path / "crawl", [20] * 60)
    output = tmp_path / "out"
    started = subprocess.Popen(
        command(crawl, output, weights),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(output.glob("done/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(started.pid, number)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == code
    assert "Traceback" not in errors and errors.strip().endswith("the same command continues.")
    finished = {file: file.stat().st_mtime_ns for file in output.glob("done/*.json")}
    assert 0 < len(finished) < 60
    if number == signal.SIGTERM:
        assert run(command(crawl, output, weights)).returncode == 0
        assert len(list(output.glob("done/*.json"))) == 60
        assert all(file.stat().st_mtime_ns == time for file, time in finished.items())


def test_handlers_are_as_before_when_the_run_is_over():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with exit_on_signals(at_once=True):
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def crawl_of(folder: Path, texts: list[str]) -> Path:
    samples = [
        {"key": f"{number:03d}", "jpg": jpeg(number), "txt": text.encode()}
        for number, text in enumerate(texts)
    ]
    return write_tar(folder / "a.tar", samples)


@pytest.mark.parametrize(
    ("texts", "threshold", "warning"),
    [
        (["a text"] * 4, 1.0, None),
        (["a text"] * 4, 100.0, "only 0 of 4 usable samples keep a text. Look at the reasons"),
        (["a text"] * 199 + ["x" * 50], 40.0, "only 1 of 200 usable samples keep a text."),
        ([""] * 4, 1.0, "no sample has a text of its own (text key 'txt')"),
    ],
)
def test_a_result_that_nobody_wants_is_warned_of(texts, threshold, warning, tmp_path):
    output, _ = clean(crawl_of(tmp_path, texts), tmp_path / "out", threshold=threshold, batch_size=50)
    warnings = [line for line in status_lines(output) if line.startswith("WARNING")]
    assert any(warning in line for line in warnings) if warning else not warnings


def test_a_crawl_of_which_most_fails_is_warned_of_with_the_reasons(tmp_path):
    samples = [{"key": f"{n}", "txt": b"a text", "json": json_of(n=n)} for n in range(3)]
    shard = write_tar(tmp_path / "a.tar", [*samples, {"key": "9", "jpg": jpeg(1), "txt": b"a text"}])
    output, _ = clean(shard, tmp_path / "out")
    lines = status_lines(output)
    assert "4 samples, 1 kept (25.0%), 0 filtered, 3 failed (75.0%)" in lines
    assert "failed samples: 3 no image" in lines
    assert lines[-1].startswith("WARNING: 75.0% of the samples failed (no image).")


def test_a_source_that_loses_nearly_all_its_texts_is_warned_of():
    totals = Totals(samples=300, kept=300, texts=Counter(web=300, synthetic=300))
    totals.kept_texts = Counter(web=2, synthetic=300)
    settings = {"rule": "itm", "threshold": 0.9, "best_synthetic": None}
    (warning,) = warnings_about(totals, {"settings": settings, "text_key": "txt"})
    assert warning.startswith("of 300 web texts, only 2 are kept. Look at the reasons")
    assert "rule 'itm' with threshold 0.9" in warning
    assert not warnings_about(totals, {"settings": {**settings, "rule": "best"}, "text_key": "txt"})


def test_an_impossible_threshold_is_refused():
    with pytest.raises(ConfigError, match="threshold: must be a finite number, found nan"):
        parse(CapFiltSettings, {"threshold": float("nan")})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_the_run_in_words_and_the_same_command_continues(tmp_path):
    crawl = write_shards(tmp_path / "crawl", [2, 2, 2])
    job = job_of(crawl, tmp_path / "out", settings_of())
    output = open_output(job)
    # Where the writer puts the successor of a file, a device that is always full takes its bytes.
    (output.folder / "shards" / f".shard-001.tar.{os.getpid()}.tmp").symlink_to("/dev/full")
    output._remove_leftovers = lambda name: None
    with pytest.raises(CapFiltError, match=r"No space left on device.* Make room") as held_to_the_end:
        Worker(job, output).run(job.input.units)
    assert "shard-001" not in output.markers()
    (output.folder / f".kept.json.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(CapFiltError, match=r"No space left on device.* Make room"):
        clean(crawl, tmp_path / "out")
    output, failed = clean(crawl, tmp_path / "out")
    assert not failed and len(output.markers()) == 3 and (output.folder / "kept.json").is_file()
    assert held_to_the_end.value.__traceback__  # the locks are let go although its frames are still there


@pytest.mark.parametrize("name", ["kept.json", "scores.json", "settings.json"])
def test_deciding_again_does_not_overwrite_the_result_of_the_run(name, tmp_path):
    output, _ = clean(crawl_of(tmp_path, ["a text"]), tmp_path / "out")
    before = contents(output.folder)
    settings = settings_of()
    with pytest.raises(CapFiltError, match="would overwrite the result"):
        refilter(output.folder, settings, output.folder / "shards" / ".." / name)
    with pytest.raises(CapFiltError, match=r"name a \.json file"):
        refilter(output.folder, settings, output.folder / "new.parquet")
    assert contents(output.folder) == before


def test_a_damaged_table_leaves_the_list_of_before(tmp_path):
    output, _ = clean(write_shards(tmp_path / "crawl", [2, 2]), tmp_path / "out")
    listed = tmp_path / "listed.json"
    settings = settings_of()
    refilter(output.folder, settings, listed)
    before = listed.read_bytes()
    (output.folder / "scores" / "shard-001.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(FileError, match=r"shard-001\.parquet: cannot be read as Parquet"):
        refilter(output.folder, settings, listed)
    assert listed.read_bytes() == before
    assert sorted(path.name for path in tmp_path.glob("*listed*")) == ["listed.json", "listed.parquet"]


def test_damaged_settings_are_named(tmp_path):
    output, _ = clean(crawl_of(tmp_path, ["a text"]), tmp_path / "out")
    (output.folder / "settings.json").write_text("{")
    with pytest.raises(CapFiltError, match=r"settings\.json: is not valid JSON.*repairs it"):
        OutputReader(output.folder).settings()
