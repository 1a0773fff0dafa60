"""Training from shards that are not what they should be: refused before, or each loss named."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import torch
from shards import jpeg, write_shards, write_tar

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.datasets.web.dataset import WebDataset
from lavis_lite.datasets.web.loader import WebTrainLoader
from lavis_lite.datasets.web.shards import ShardError, list_shards


def loader(folder: Path, text_key: str = "txt", **settings) -> WebTrainLoader:
    processors = (lambda image: torch.zeros(1), str)
    data = WebDataset(list_shards([str(folder)]), *processors, text_key=text_key, shuffle_buffer=5)
    return WebTrainLoader(data, **{"batch_size": 4, "seed": 0, "drop_last": False, **settings})


def keys(batches) -> list[str]:
    return [key for batch in batches if not batch.filler for key in batch.samples["image_id"]]


def reasons(batches) -> list[str]:
    return [note.reason for batch in batches for note in batch.bad_samples]


def numbers(batches) -> set[int]:
    return {note.index for batch in batches for note in batch.bad_samples}


def index(folder: Path, **samples: int) -> None:
    rows = [{"name": f"{name}.tar", "samples": count} for name, count in samples.items()]
    (folder / "index.json").write_text(json.dumps({"shards": rows}))


# Before the first step


@pytest.mark.parametrize(
    ("samples", "text_key", "message"),
    [
        (
            [{"key": key, "jpg": jpeg(1), "cls": b"3"} for key in "abc"],
            "txt",
            r"3 x has no \.txt.*\.cls is neither",
        ),
        (
            [{"key": "0.input", "jpg": jpeg(1)}, {"key": "0.outputs", "txt": b"a"}],
            "txt",
            r"They hold 1 \.input\.jpg, 1 \.outputs\.txt\. A sample is KEY\.jpg with KEY\.txt",
        ),
        (
            [{"key": "0", "jpg": jpeg(1), "json": b'{"caption": "a"}'}],
            "captions",
            r"no field 'captions'; did you mean caption\?",
        ),
        (
            [{"key": "0", "jpg": jpeg(1), "json": b'{"caption": "a"}'}],
            "txt",
            "its json has caption: set text_key",
        ),
        ([{"key": "0", "jpg": jpeg(1), "txt": b"caf\xe9"}], "txt", "not UTF-8"),
        ([{"key": "0", "jpg": b"no image", "txt": b"a"}], "txt", "its image: not an image"),
        ([{"key": "0", "txt": b"a"}], "txt", "has no image"),
        ([], "txt", "no members"),
    ],
)
def test_shards_without_one_usable_sample_are_refused_with_what_they_hold(
    tmp_path, samples, text_key, message
):
    folder = write_tar(tmp_path / "shards" / "a.tar", samples).parent
    with pytest.raises(ConfigError, match=message):
        loader(folder, text_key)


def test_one_usable_sample_among_the_first_is_enough(tmp_path):
    bad = [{"key": f"{number}", "jpg": jpeg(1), "txt": b""} for number in range(50)]
    folder = write_tar(tmp_path / "a.tar", [*bad, {"key": "good", "jpg": jpeg(1), "txt": b"a"}]).parent
    assert loader(folder).batches_per_epoch == 13


def test_resampled_shards_are_looked_at_too(tmp_path):
    folder = write_tar(tmp_path / "a.tar", [{"key": "a", "jpg": jpeg(1), "cls": b"1"}]).parent
    data = WebDataset(
        list_shards([str(folder)]), lambda image: torch.zeros(1), str, resampled=True, epoch_size=10
    )
    with pytest.raises(ConfigError, match=r"has no \.txt"):
        WebTrainLoader(data, 4, seed=0)


# In training


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_shards(tmp_path / "shards", [4, 4])


def test_samples_without_an_image_are_named_and_take_no_place(folder, caplog):
    samples = [{"key": "bare", "txt": b"a"}, {"key": "whole", "jpg": jpeg(1), "txt": b"a"}]
    write_tar(folder / "shard-000.tar", samples)
    batches = list(loader(folder).epoch(0))
    assert sorted(keys(batches)) == ["000004", "000005", "000006", "000007", "whole"]
    assert not reasons(batches) and "(no image of the same name): bare.txt" in caplog.text


@pytest.mark.parametrize("num_workers", [0, 1])
def test_members_that_are_not_used_are_logged_once_and_are_no_bad_samples(folder, caplog, num_workers):
    samples = [{"key": f"{n}", "jpg": jpeg(n), "txt": b"a", "cls": b"1"} for n in range(4)]
    write_tar(folder / "shard-000.tar", samples)
    batches = loader(folder, num_workers=num_workers)
    assert not reasons([*batches.epoch(0), *batches.epoch(1)])
    (record,) = caplog.records
    assert "shard-000.tar: 4 members are not used" in record.getMessage()


def test_every_damage_of_a_shard_is_a_note_of_its_own(folder):
    path = write_shards(folder, [12, 4]) / "shard-000.tar"
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        for name in ("000003.jpg", "000007.jpg"):
            content[archive.getmember(name).offset] ^= 1
    path.write_bytes(content)
    batches = list(loader(folder).epoch(0))
    assert len(set(keys(batches))) == 14
    assert len(numbers(batches)) == 2 and all("no valid header" in reason for reason in reasons(batches))


def test_an_index_that_promises_too_much_is_named_and_each_missing_sample_counted(folder, caplog):
    index(folder, **{"shard-000": 12, "shard-001": 4})
    batches = list(loader(folder).epoch(0))
    assert len(batches) == 4 and set(keys(batches)) == {f"{n:06d}" for n in range(8)}
    assert "shard-000.tar: holds 4 samples that have an image, not 12" in caplog.text
    assert len(numbers(batches)) == 8
    assert numbers(loader(folder).epoch(1)) == numbers(batches)


def test_an_index_that_promises_too_little_is_named(folder, caplog):
    index(folder, **{"shard-000": 1, "shard-001": 4})
    batches = list(loader(folder).epoch(0))
    assert len(batches) == 2 and "shard-000.tar: holds 4 samples that have an image, not 1" in caplog.text


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_stream_that_gives_no_sample_at_all_is_one_error(folder, num_workers):
    write_tar(folder / "shard-001.tar", [])
    index(folder, **{"shard-000": 4, "shard-001": 4})
    batches = loader(folder, rank=1, world_size=2, num_workers=num_workers)
    with pytest.raises(ShardError, match=r"^0 samples came from .*shard-001\.tar, .* holds 0 samples"):
        list(batches.epoch(0))


def test_an_index_that_promises_far_too_much_does_not_make_an_endless_epoch(folder):
    index(folder, **{"shard-000": 1000, "shard-001": 4})
    batches = loader(folder).epoch(0)
    with pytest.raises(ShardError, match=r"8 samples came from .* and more than twice as many were counted"):
        for _ in range(6):
            next(batches)


def test_resampled_shards_that_give_nothing_any_more_are_an_error_and_no_endless_loop(folder):
    names = [str(folder)]
    data = WebDataset(
        list_shards(names),
        lambda image: torch.zeros(1),
        str,
        resampled=True,
        epoch_size=100,
        shuffle_buffer=0,
    )
    batches = WebTrainLoader(data, 4, seed=0).epoch(0)
    next(batches)
    for path in folder.glob("*.tar"):
        path.unlink()
    with pytest.raises(ShardError, match=r"20 shards in a row gave no sample; .* there is no such file"):
        list(batches)


def test_a_rank_whose_shards_are_empty_takes_part_with_another_ones_sample(folder):
    write_tar(folder / "shard-001.tar", [])
    batches = list(loader(folder, rank=1, world_size=2).epoch(0))
    assert [batch.filler for batch in batches] == [True] and "image" in batches[0].samples


def test_a_sample_that_memory_is_too_small_for_is_replaced(folder):
    batches = loader(folder)
    failed: list[int] = []

    def grow(image) -> torch.Tensor:
        if not failed:
            failed.append(1)
            raise MemoryError
        return torch.zeros(1)

    batches.dataset.vis_processor = grow
    assert len(reasons(list(batches.epoch(0)))) == 1


def test_large_samples_do_not_fill_the_shuffle_buffer(folder, monkeypatch):
    from lavis_lite.datasets.web import loader as loading

    monkeypatch.setattr(loading, "MAX_SHUFFLE_BYTES", 1)
    assert sorted(keys(loader(folder).epoch(0))) == [f"{n:06d}" for n in range(8)]


def test_too_many_bad_samples_in_a_row_are_one_error(folder):
    batches = loader(folder, num_workers=1)

    def fail(image) -> torch.Tensor:
        raise ValueError("no such image")

    batches.dataset.vis_processor = fail
    with pytest.raises(ShardError, match=r"^20 samples in a row cannot be read"):
        list(batches.epoch(0))
