"""The output folder: whose it is, what it was begun with, and what happens when its files are damaged."""

from __future__ import annotations

import json
import multiprocessing
import random
from pathlib import Path

import pytest
from cleaning import Letters, clean, contents, job_of, settings_of
from shards import jpeg, write_shards, write_tar

from lavis_lite.capfilt.output_reader import CapFiltError, OutputReader
from lavis_lite.capfilt.output_writer import SMALL_BYTES, OutputWriter
from lavis_lite.capfilt.score_tables import refilter
from lavis_lite.capfilt.sources import from_folder, from_shards
from lavis_lite.capfilt.summary import status_lines
from lavis_lite.capfilt.workers import open_output
from lavis_lite.datasets.web.shards import list_shards

MADE = ("shards/shard-001.tar", "scores/shard-001.parquet", "done/shard-001.json")
WHOLE = ("kept.json", "scores.parquet", "shards/index.json", "settings.json")


@pytest.fixture
def crawl(tmp_path) -> Path:
    return write_shards(tmp_path / "crawl", [3, 2, 4])


@pytest.fixture
def done(crawl, tmp_path) -> Path:
    output, failed = clean(crawl, tmp_path / "out")
    assert not failed
    return output.folder


def start(crawl, output: Path, **settings) -> OutputWriter:
    return open_output(job_of(crawl, output, settings_of(**settings)))


@pytest.mark.parametrize("name", [*MADE, *WHOLE])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "zeros"])
def test_the_same_command_repairs_a_damaged_file(damage, name, done, crawl):
    before = contents(done)
    file = done / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        changed = {"empty": b"", "cut": content[: len(content) // 2], "zeros": bytes(len(content))}
        file.write_bytes(changed[damage])
    _, failed = clean(crawl, done)
    assert not failed and contents(done) == before
    assert file.stat().st_size


@pytest.mark.parametrize("content", [None, b"", b"{}", b'["a", "list"]', b'{"samples": null}'])
def test_a_unit_without_its_times_is_done_all_the_same(content, done, crawl):
    before = {file: file.stat().st_mtime_ns for file in done.glob("done/*.json")}
    file = done / "times" / "shard-001.json"
    file.unlink() if content is None else file.write_bytes(content)
    clean(crawl, done)
    assert {file: file.stat().st_mtime_ns for file in done.glob("done/*.json")} == before
    assert any("images a second and worker; 7 in" in line for line in status_lines(OutputReader(done)))


def test_only_the_unit_whose_file_is_damaged_is_done_again(done, crawl, caplog):
    (done / MADE[0]).unlink()
    before = {file: file.stat().st_mtime_ns for file in done.glob("done/*.json")}
    clean(crawl, done)
    changed = {file.stem for file, time in before.items() if file.stat().st_mtime_ns != time}
    assert changed == {"shard-001"}
    assert "shard-001.tar is missing; the unit shard-001 is done again" in caplog.text


def test_a_large_file_of_the_right_size_is_compared_on_request(tmp_path):
    noise = random.Random(0).randbytes(SMALL_BYTES)
    large = {"key": "a", "jpg": jpeg(1) + noise, "txt": b"a text"}
    write_tar(tmp_path / "crawl" / "a.tar", [large])
    output, _ = clean(tmp_path / "crawl", tmp_path / "out")
    before = contents(output.folder)
    file = output.folder / "shards" / "a.tar"
    content = bytearray(file.read_bytes())
    content[SMALL_BYTES // 2] ^= 1
    file.write_bytes(content)
    clean(tmp_path / "crawl", tmp_path / "out")
    assert contents(output.folder) != before
    clean(tmp_path / "crawl", tmp_path / "out", verify=True)
    assert contents(output.folder) == before


def test_a_table_that_is_damaged_while_others_work_is_made_again(crawl, tmp_path, monkeypatch):
    output, _ = clean(crawl, tmp_path / "reference")
    expected = contents(output.folder)

    def damage(request) -> None:
        table = tmp_path / "out" / "scores" / "shard-000.parquet"
        if "000005" in request.keys and table.is_file() and not damaged_once:
            content = table.read_bytes()
            table.write_bytes(content[:40] + bytes([content[40] ^ 255]) + content[41:])
            damaged_once.append(table)

    damaged_once: list[Path] = []
    monkeypatch.setattr(Letters, "on_texts", staticmethod(damage))
    output, failed = clean(crawl, tmp_path / "out")
    assert damaged_once and not failed and contents(output.folder) == expected


def test_other_settings_are_shown_by_key_and_nothing_else(done, crawl):
    with pytest.raises(CapFiltError) as error:
        clean(crawl, done, threshold=6.0, drop_patterns=["x"])
    assert str(error.value) == (
        f"{done}: was begun with other settings (settings.drop_patterns was [] and is now ['x']; "
        "settings.threshold was 1.0 and is now 6.0). Give another output folder, or the same settings."
    )


def test_other_shards_are_shown_and_not_all_of_them(done, tmp_path):
    other = write_shards(tmp_path / "other", [1] * 20)
    with pytest.raises(CapFiltError) as error:
        clean(other, done)
    text = str(error.value)
    assert f"shards.shard-003 was not set and is now '{other / 'shard-003.tar'}'" in text
    assert "and 12 more" in text and len(text) < 2500


@pytest.mark.parametrize("spelled", ["../crawl", "./../crawl/", "../link/*.tar", "{absolute}"])
def test_the_same_shards_spelled_from_another_folder_are_the_same(
    spelled, done, crawl, tmp_path, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(crawl)
    monkeypatch.chdir(tmp_path / "elsewhere")
    before = {file: file.stat().st_mtime_ns for file in done.glob("done/*.json")}
    given = from_shards(list_shards([spelled.format(absolute=crawl)]))
    output, failed = clean(given, Path("../out"))
    assert not failed and output.markers().keys() == {"shard-000", "shard-001", "shard-002"}
    assert {file: file.stat().st_mtime_ns for file in done.glob("done/*.json")} == before


def test_shards_of_equal_names_lose_nothing(tmp_path):
    names = ["x/a.tar", "y/a.tar", "z/000001-a.tar"]
    for number, name in enumerate(names):
        samples = [{"key": f"{number}-{k}", "jpg": jpeg(k), "txt": b"a text"} for k in range(4)]
        write_tar(tmp_path / name, samples)
    given = from_shards(list_shards([str(tmp_path / name) for name in names]))
    output, failed = clean(given, tmp_path / "out")
    assert not failed and sum(marker["kept"] for marker in output.markers().values()) == 12
    assert len(json.loads((output.folder / "kept.json").read_text())) == 12


def test_images_that_were_added_since_are_noticed(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        (photos / f"b{number}.jpg").write_bytes(jpeg(number))
    clean(from_folder(photos, 2), tmp_path / "out")
    clean(from_folder(photos / ".." / "photos", 2), tmp_path / "out")
    (photos / "a.jpg").write_bytes(jpeg(9))
    with pytest.raises(CapFiltError, match=r"shards\.000000 was .* and is now"):
        clean(from_folder(photos, 2), tmp_path / "out")


def test_settings_that_are_gone_are_written_again_only_if_they_are_the_same(done, crawl):
    settings = (done / "settings.json").read_bytes()
    (done / "settings.json").unlink()
    with pytest.raises(CapFiltError, match="made with other settings"):
        clean(crawl, done, threshold=6.0)
    assert not (done / "settings.json").exists()
    clean(crawl, done)
    assert (done / "settings.json").read_bytes() == settings


def test_a_folder_of_an_earlier_version_is_read_and_not_continued(done, crawl, tmp_path):
    """Version 0.1.0 listed its shards, and its markers had no digests."""
    settings = json.loads((done / "settings.json").read_text())
    (done / "settings.json").write_text(json.dumps({**settings, "shards": list(settings["shards"].values())}))
    for marker in (done / "done").glob("*.json"):
        content = json.loads(marker.read_text())
        counts = ("samples", "kept", "filtered", "failed", "written", "damage", "input", "made_with")
        marker.write_text(json.dumps({key: content[key] for key in counts}))
    with pytest.raises(CapFiltError, match=r"was begun by version 0\.1\.0"):
        clean(crawl, done)
    assert "3 shards done" in status_lines(OutputReader(done))[0]
    refilter(done, settings_of(), tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads((done / "kept.json").read_text())


def begin(folder: Path, threshold: float, barrier, results) -> None:
    identity = {"settings": {"threshold": threshold}, "models": {}, "shards": {"a": "/a.tar"}}
    barrier.wait()
    try:
        OutputWriter(folder, identity)
        results.put(threshold)
    except CapFiltError as error:
        results.put(str(error))


def test_of_several_first_starts_with_other_settings_one_is_accepted(tmp_path):
    context = multiprocessing.get_context("fork")
    for attempt in range(5):
        barrier, results = context.Barrier(3), context.Queue()
        folder = tmp_path / f"out-{attempt}"
        processes = [context.Process(target=begin, args=(folder, n / 10, barrier, results)) for n in range(3)]
        for process in processes:
            process.start()
        outcomes = [results.get(timeout=60) for _ in processes]
        for process in processes:
            process.join(60)
        (accepted,) = (outcome for outcome in outcomes if isinstance(outcome, float))
        assert json.loads((folder / "settings.json").read_text())["settings"] == {"threshold": accepted}
        refused = [outcome for outcome in outcomes if isinstance(outcome, str)]
        assert all(f"settings.threshold was {accepted}" in message for message in refused)


def test_a_folder_that_holds_something_else_is_not_written_into(crawl, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(jpeg(1))
    given = from_shards(list_shards([str(crawl)]))
    with pytest.raises(
        CapFiltError, match=r"not empty and not an output folder of capfilt \(it holds a\.jpg\)"
    ):
        start(given, tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.jpg"]


@pytest.mark.parametrize("content", ['{"editor.fontSize": 12}', "// comments\n{}", ""])
def test_settings_of_another_program_are_not_touched(content, crawl, tmp_path):
    folder = tmp_path / ".vscode"
    folder.mkdir()
    (folder / "settings.json").write_text(content)
    with pytest.raises(CapFiltError, match="Choose another output folder"):
        start(from_shards(list_shards([str(crawl)])), folder)
    assert (folder / "settings.json").read_text() == content


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("crawl", "is the input folder"),
        ("crawl/cleaned", "lies in the input folder"),
        (".", "contains the input folder"),
        ("link", "is the input folder"),
        ("crawl/shard-000.tar", "cannot be used as output folder|lies in the input folder"),
    ],
)
def test_output_and_input_are_kept_apart(output, message, crawl, tmp_path):
    (tmp_path / "link").symlink_to(crawl)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    given = from_shards(list_shards([str(crawl)]), folders=[crawl])
    with pytest.raises(CapFiltError, match=message):
        start(given, tmp_path / output)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_its_own_result_is_no_input(done):
    given = from_shards(list_shards([str(done / "shards" / "shard-000.tar")]))
    with pytest.raises(CapFiltError, match="contains the input"):
        start(given, done)


def test_the_folder_of_a_shard_may_hold_the_output(tmp_path):
    write_tar(tmp_path / "a.tar", [{"key": "a", "jpg": jpeg(1), "txt": b"a text"}])
    _, failed = clean(tmp_path / "a.tar", tmp_path / "cleaned")
    assert not failed


def test_an_output_that_is_a_file_is_refused_in_words(crawl, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CapFiltError, match="cannot be used as output folder"):
        start(from_shards(list_shards([str(crawl)])), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_leftovers_of_a_killed_writer_go_and_those_of_other_units_stay(tmp_path):
    write_tar(tmp_path / "crawl" / "a.tar", [{"key": "a", "jpg": jpeg(1), "txt": b"a text"}])
    shards = tmp_path / "out" / "shards"
    start(from_shards(list_shards([str(tmp_path / "crawl")])), tmp_path / "out")
    (shards / ".a.tar.123.tmp").write_bytes(b"half")
    (shards / ".a.tar.gz.tar.123.tmp").write_bytes(b"of another unit")
    clean(tmp_path / "crawl", tmp_path / "out")
    assert sorted(path.name for path in shards.glob(".*.tmp")) == [".a.tar.gz.tar.123.tmp"]
