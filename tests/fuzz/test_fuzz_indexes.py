"""Damaged image indexes: every row that is answered is the file's own; what is lost is named and repaired."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from damage import bounded, damaged, seeds

from lavis_lite.search.feature_store import FeatureStore, FeatureStoreError

FEATURES = {"small.f32": [24], "large.f16": [2, 12]}
ABOUT = {"weights": "abc", "image_size": 32}


def open_store(folder: Path) -> FeatureStore:
    store = FeatureStore(folder, ABOUT, FEATURES)
    for name in FEATURES:
        store.verify(name)
    return store


def features_of(names: list[str]) -> dict[str, np.ndarray]:
    """Rows that depend on the name and the version of a file alone."""
    drawn = [np.random.default_rng(sum(name.encode())).standard_normal(24) for name in names]
    small = np.stack(drawn).astype(np.float32)
    return {"small.f32": small, "large.f16": small.reshape(-1, 2, 12).astype(np.float16)}


def add(store: FeatureStore, files: list[Path]) -> None:
    with store.adding(verify=FEATURES):
        lacking = store.lacking(files)
        if lacking:
            store.append(lacking, features_of([path.read_text() for path in lacking]), {})


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, list[Path]]:
    """An index of 20 files, one of which has changed and one of which cannot be read."""
    folder = tmp_path_factory.mktemp("whole")
    files = [folder / f"{number:02d}.jpg" for number in range(20)]
    for file in files:
        file.write_text(file.name)
    index = folder / "index"
    store = FeatureStore(index, ABOUT, FEATURES)
    for start in range(0, 20, 6):
        add(store, files[start : start + 6])
    files[4].write_text("04.jpg again")
    add(store, files)
    with store.adding():
        store.append({}, {}, {folder / "bad.jpg": "not an image"})
    return index, files


def wrong_rows(store: FeatureStore) -> list[Path]:
    """Return the files that are answered with the row of something else, or of what they were before."""
    rows = {name: store.read(name) for name in FEATURES}
    return [
        path
        for path, row in store.rows.items()
        if not store.changed(path)  # else the search says that the file has changed
        and any((rows[name][row] != features_of([path.read_text()])[name][0]).any() for name in FEATURES)
    ]


@pytest.mark.parametrize("seed", seeds(quick=60, full=1200))
def test_a_damaged_index_answers_truly_names_what_is_lost_and_is_repaired(whole, tmp_path, seed):
    index, files = whole
    folder = tmp_path / "index"
    shutil.copytree(index, folder)
    draw = random.Random(seed)
    target = draw.choice(["index.json", "files.jsonl", "files.jsonl", "small.f32", "large.f16"])
    content, _ = damaged((folder / target).read_bytes(), draw)
    (folder / target).write_bytes(content)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with bounded(seconds=20, mebibytes=256):
        try:
            store = open_store(folder)
        except FeatureStoreError as error:
            assert str(folder) in str(error)
            assert target == "index.json"
            return
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
        assert wrong_rows(store) == []
        lost = [path for path in files if path not in store.rows or store.changed(path)]
        assert store.damage or (not lost and len(store.errors) == 1)
        add(store, files)
        again = open_store(folder)
    assert sorted(again.rows) == files and not again.damage
    assert wrong_rows(again) == []
