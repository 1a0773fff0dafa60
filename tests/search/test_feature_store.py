"""Features of files on disk: bound to their files whatever is damaged, moved, or done at once."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from lavis_lite.common.checked_lines import checked_line
from lavis_lite.search.feature_head import read_head
from lavis_lite.search.feature_store import FeatureStore, FeatureStoreError

FEATURES = {"small.f32": [4], "large.f16": [3, 2]}
ABOUT = {"weights": "abc"}


def row_of(path: Path) -> np.ndarray:
    """A row that tells which file it is of."""
    return np.frombuffer(os.fsencode(path.name).ljust(4)[:4], np.uint8).astype(np.float32)


def features_of(paths: list[Path]) -> dict[str, np.ndarray]:
    small = np.stack([row_of(path) for path in paths])
    return {"small.f32": small, "large.f16": np.repeat(small[:, :3, None], 2, axis=2)}


def fill(store: FeatureStore, files: list[Path], at_once: int = 100) -> None:
    with store.adding(verify=FEATURES):
        lacking = list(store.lacking(files).items())
        for start in range(0, len(lacking), at_once):
            stamps = dict(lacking[start : start + at_once])
            store.append(stamps, features_of(list(stamps)), {})


def assert_bound(store: FeatureStore) -> None:
    rows, large = store.read("small.f32"), store.read("large.f16")
    for path, row in store.rows.items():
        assert (rows[row] == row_of(path)).all(), path
        assert (large[row] == features_of([path])["large.f16"][0]).all(), path


def make(folder: Path) -> FeatureStore:
    return FeatureStore(folder, ABOUT, FEATURES)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.jpg").write_text(str(number))
    return sorted(folder.iterdir())


@pytest.fixture
def store(tmp_path, files) -> FeatureStore:
    store = make(tmp_path / "index")
    fill(store, files)
    return store


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_reading_writes_nothing_and_needs_no_folder(tmp_path, store):
    absent = make(tmp_path / "none")
    assert not absent.rows and absent.read("small.f32").shape == (0, 4)
    assert not (tmp_path / "none").exists()
    with (store.folder / "files.jsonl").open("ab") as log:
        log.write(b"half a line of somebody who adds")
    before = content(store.folder)
    again = make(store.folder)
    assert len(again.rows) == 6 and not again.damage
    assert content(store.folder) == before


def test_what_an_interrupted_addition_left_is_written_over(store, files):
    for name in ("small.f32", "large.f16", "files.jsonl"):
        with (store.folder / name).open("ab") as file:
            file.write(b"unfinished")
    again = make(store.folder)
    files[0].write_text("changed")
    fill(again, files)
    assert len(again.rows) == 6 and not again.damage
    assert_bound(make(store.folder))


def add_from(folder: str, names: list[str], barrier) -> None:
    store = make(Path(folder))
    barrier.wait()
    fill(store, [Path(name) for name in names], at_once=2)


def test_two_processes_that_add_at_once_keep_every_row_with_its_file(tmp_path):
    names = []
    for side in "ab":
        for number in range(40):
            file = tmp_path / f"{side}{number:02d}.jpg"
            file.touch()
            names.append(str(file))
    barrier = multiprocessing.get_context("fork").Barrier(3)
    both = [
        multiprocessing.get_context("fork").Process(
            target=add_from, args=(str(tmp_path / "index"), names[start : start + 50], barrier)
        )
        for start in (0, 30)  # 20 files are in both
    ]
    for process in both:
        process.start()
    barrier.wait()
    while any(process.is_alive() for process in both):
        reader = make(tmp_path / "index")
        assert not reader.damage
        assert_bound(reader)
    for process in both:
        process.join()
        assert process.exitcode == 0
    last = make(tmp_path / "index")
    assert sorted(map(str, last.rows)) == names and len(last.read("small.f32")) == 80
    assert_bound(last)


def test_links_and_relative_paths_lead_to_one_entry(tmp_path, store, files, monkeypatch):
    (tmp_path / "link").symlink_to(files[0].parent)
    monkeypatch.chdir(files[0].parent)
    names = [file.name for file in files]
    assert store.lacking([*names, *(tmp_path / "link" / name for name in names)]) == {}


def test_an_index_moved_with_its_images_finds_them(tmp_path, store, files):
    before = list(store.rows)
    (tmp_path / "moved").mkdir()
    for name in ("images", "index"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    moved = make(tmp_path / "moved" / "index")
    assert list(moved.rows) == [tmp_path / "moved" / "images" / path.name for path in before]
    fill(moved, list(moved.rows))
    assert read_head(moved.folder).folder == str(moved.folder)
    assert_bound(make(moved.folder))


def test_an_index_moved_alone_still_finds_its_images(tmp_path, store, files):
    (tmp_path / "index").rename(tmp_path / "other")
    assert list(make(tmp_path / "other").rows) == files


def test_files_that_are_gone_leave_the_index_where_their_folder_is_there(tmp_path, store, files):
    files[1].unlink()
    with store.adding():
        assert store.forget_removed() == [files[1]]
    assert files[1] not in make(store.folder).rows
    (tmp_path / "images").rename(tmp_path / "unmounted")
    with store.adding():
        assert store.forget_removed() == []
    assert len(make(store.folder).rows) == 5


def test_a_folder_of_something_else_is_not_written_into(tmp_path, files):
    before = content(files[0].parent)
    with pytest.raises(FeatureStoreError, match="is not an index, and not empty"):
        fill(make(files[0].parent), files)
    assert content(files[0].parent) == before
    with pytest.raises(FeatureStoreError, match="is a file; name a folder"):
        fill(make(files[0]), files)


def test_an_index_of_an_earlier_version_is_refused_with_what_to_do(tmp_path):
    old = {"weights": "abc", "image_size": 32, "features": {"small.f32": [4]}}
    (tmp_path / "index.json").write_text(json.dumps(old))
    with pytest.raises(
        FeatureStoreError, match=r"earlier version.*remove the folder and add the images again"
    ):
        make(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"version": 2, "crc": "00000000"}', b"[" * 100_000, b"\xff\xfe"]
)
def test_an_index_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(FeatureStoreError, match=r"index\.json"):
        make(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"features": {"../../secret.f32": [4]}},
        {"features": {"small.f32": [-4]}},
        {"features": {"small.f32": [1 << 40]}},
        {"features": {"small.f32": ["4"]}},
        {"features": {"small.py": [4]}},
        {"log": "/etc/passwd"},
        {"rows": -1},
        {"lines": True, "rows": "6"},
        {"about": None},
    ],
)
def test_an_index_that_names_what_no_index_has_is_refused(store, change):
    import dataclasses

    dataclasses.replace(read_head(store.folder), **change).write(store.folder)
    with pytest.raises(FeatureStoreError, match="is not of an image index"):
        make(store.folder)


@pytest.mark.parametrize(
    "change", [{"row": -1}, {"row": 6}, {"row": 1.0}, {"row": None}, {"path": 7}, {"crcs": {}}, {"line": 3}]
)
def test_a_line_that_cannot_be_is_named_and_not_answered(store, files, change):
    lines = (store.folder / "files.jsonl").read_bytes().splitlines(keepends=True)
    entry = json.loads(lines[2])
    entry.pop("crc")
    # Where the length differs, the lines behind it are cut short as well.
    lines[2] = checked_line({**entry, **change})
    (store.folder / "files.jsonl").write_bytes(b"".join(lines))
    again = make(store.folder)
    assert any("line 3 is damaged or missing" in sentence for sentence in again.damage)
    assert files[2] not in again.rows and -1 not in again.rows.values()
    assert_bound(again)


def test_a_damaged_row_is_named_left_out_and_added_again(store, files):
    path = store.folder / "small.f32"
    damaged = bytearray(path.read_bytes())
    damaged[2 * 16] ^= 1
    path.write_bytes(damaged)
    again = make(store.folder)
    again.verify("small.f32")
    assert files[2] not in again.rows and str(files[2]) in again.damage[0]
    fill(again, files)
    assert sorted(again.rows) == files and not again.damage
    assert_bound(make(store.folder))


def test_rows_that_are_missing_are_named_and_added_again(store, files):
    os.truncate(store.folder / "large.f16", 40)  # 3 rows and a part
    again = make(store.folder)
    assert list(again.rows) == files[:3]
    assert "holds 3 of 6 rows; those of 3 files are missing" in again.damage[0]
    fill(again, files)
    assert sorted(again.rows) == files
    assert_bound(make(store.folder))


def test_features_that_are_not_finite_are_an_error_of_their_file(tmp_path, files):
    store = make(tmp_path / "index")
    features = features_of(files[:2])
    features["small.f32"][0, 1] = np.nan
    with store.adding():
        store.append(store.lacking(files[:2]), features, {})
    assert list(store.rows) == [files[1]]
    assert store.errors == {files[0]: "its features are not finite numbers"}
    assert_bound(make(tmp_path / "index"))


def test_a_pipe_in_place_of_a_file_does_not_wait_for_anybody(store):
    (store.folder / "files.jsonl").unlink()
    os.mkfifo(store.folder / "files.jsonl")
    again = make(store.folder)
    assert not again.rows and "is a named pipe" in again.damage[0]


def test_names_that_are_not_utf8_come_back_as_they_are(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    path.touch()
    fill(make(tmp_path / "index"), [path])
    assert list(make(tmp_path / "index").rows) == [path]
