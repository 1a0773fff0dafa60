"""Names in the output: unique, safe, and the same however a path is spelled."""

from __future__ import annotations

import os
import random

import pytest

from lavis_lite.capfilt.output_names import canonical_source, output_keys, unit_names


def assert_file_names(names: list[str]) -> None:
    """They are different on every file system, and each is one component that is not hidden."""
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert name and "/" not in name and "\n" not in name and not name.startswith((".", "-"))
        assert len(f".{name}.parquet.1234567.tmp".encode()) < 256


def test_a_shard_has_the_name_of_its_file():
    assert unit_names(["crawl/shard-000.tar", "http://there/b.tar?token=1"]) == ["shard-000", "b"]


@pytest.mark.parametrize(
    "sources",
    [
        ["x/a.tar", "y/a.tar", "z/000001-a.tar"],
        ["s3/A.tar", "s3/a.tar"],
        ["x/a.tar", "x/a.tar.gz", "y/a.tar"],
        ["http://h/a.tar?x=1", "http://h/a.tar?x=2", "http://h/get?file=a/b.tar", "http://h/"],
        ["pipe:cat x/y.tar | gzip -d", "pipe:cat z/y.tar | gzip -d"],
        ["caf\udce9.tar", "caf\udce8.tar", "caf_.tar"],
        ["new\nline.tar", "new_line.tar", "new line.tar"],
        ["a" * 240 + "1.tar", "a" * 240 + "2.tar", "犬" * 80 + "1.tar", "犬" * 80 + "2.tar"],
        ["Straße.tar", "STRASSE.tar", "e\u0301.tar", "\u00e9.tar"],
        [".tar", "..tar", "-rf.tar", ".hidden.tar"],
    ],
)
def test_names_that_fall_together_are_told_apart(sources):
    assert_file_names(unit_names(sources))


def test_a_name_that_looks_like_one_that_was_told_apart_is_told_apart_too():
    first = unit_names(["x/a.tar", "y/a.tar"])
    third = f"z/{first[1]}.tar"
    assert_file_names(unit_names(["x/a.tar", "y/a.tar", third]))
    assert unit_names(["x/a.tar", "y/a.tar", third])[:1] == first[:1]


def test_names_do_not_depend_on_how_a_path_is_spelled(tmp_path, monkeypatch):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.tar").touch()
    (tmp_path / "link").symlink_to(tmp_path / "x")
    (tmp_path / "b.tar").symlink_to(tmp_path / "y" / "a.tar")
    expected = unit_names([str(tmp_path / "x" / "a.tar"), str(tmp_path / "y" / "a.tar")])
    monkeypatch.chdir(tmp_path / "x")
    for spelled in (["a.tar", "../y/a.tar"], ["./a.tar", "..//y/./a.tar"], ["../link/a.tar", "../b.tar"]):
        assert unit_names(spelled) == expected
        assert [canonical_source(path) for path in spelled] == [
            os.path.realpath(tmp_path / "x" / "a.tar"),
            os.path.realpath(tmp_path / "y" / "a.tar"),
        ]


def test_a_cache_that_links_to_digests_gives_the_names_of_the_links(tmp_path):
    (tmp_path / "0a1b2c").touch()
    (tmp_path / "shard-000.tar").symlink_to(tmp_path / "0a1b2c")
    assert unit_names([str(tmp_path / "shard-000.tar")]) == ["shard-000"]


def test_keys_that_are_safe_stay_as_they_are():
    keys = ["000001", "00000/000001", "süßer hund", "a-0", "__meta__"]
    assert output_keys(keys) == keys


def test_equal_keys_become_different_ones():
    names = output_keys(["a", "a", "a", "b"])
    assert names[0] == "a" and names[3] == "b" and len(set(names)) == 4
    taken = output_keys(["a", "a", names[1]])
    assert len(set(taken)) == 3 and taken[2] == names[1]


def test_any_keys_become_safe_and_unique():
    letters = ["a", "b", "/", "..", ".", "\\", ":", "\n", " ", "\udce9", "\u202e", "é", "-", "_", "\0"]
    for seed in range(200):
        draw = random.Random(seed)
        names = output_keys(["".join(draw.choices(letters, k=draw.randrange(1, 6))) for _ in range(30)])
        assert len(set(names)) == len(names)
        for name in names:
            parts = name.split("/")
            assert name.isprintable() and "\\" not in name and "." not in parts[-1], (seed, name)
            assert all(part and not part.startswith(".") for part in parts), (seed, name)
