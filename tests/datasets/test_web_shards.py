"""Training from tar shards: every sample once, from any batch on, and what damage does."""

from __future__ import annotations

import json
import pickle
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from file_server import running_server
from processes import run
from shards import jpeg, write_shards, write_tar

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.datasets.web.dataset import WebDataset
from lavis_lite.datasets.web.loader import WebTrainLoader
from lavis_lite.datasets.web.shards import Shard, count_samples, list_shards, raw_samples


def to_tensor(image) -> torch.Tensor:
    return torch.tensor(image.getpixel((0, 0))) + torch.rand(3)


def dataset(*patterns: str | Path, **settings) -> WebDataset:
    given = {"shuffle_buffer": 5, **settings}
    return WebDataset(list_shards([str(p) for p in patterns]), to_tensor, str.upper, **given)


def loader(data: WebDataset, **settings) -> WebTrainLoader:
    return WebTrainLoader(data, **{"batch_size": 4, "seed": 0, "drop_last": False, **settings})


def keys(batches) -> list[str]:
    return [key for batch in batches if not batch.filler for key in batch.samples["image_id"]]


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_shards(tmp_path / "shards", [7, 5, 9, 4, 6])  # 31 samples


def test_patterns_name_shards_in_order(folder):
    names = [f"shard-{index:03d}.tar" for index in range(5)]
    for pattern in (f"{folder}/*.tar", f"{folder}/shard-{{000..004}}.tar", str(folder)):
        assert [Path(shard.name).name for shard in list_shards([pattern])] == names


def test_a_pattern_that_names_nothing_is_refused(folder):
    for pattern in (f"{folder}/shard-{{003..007}}.tar", f"{folder}/shard-005.tar"):
        with pytest.raises(ConfigError, match=r"names no file: .*shard-005\.tar"):
            list_shards([pattern])


def test_headers_tell_how_many_samples_there_are(folder):
    counts = [count_samples(shard) for shard in list_shards([str(folder)])]
    assert counts == [7, 5, 9, 4, 6]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_has_every_sample_once_in_another_order_than_the_next(folder, num_workers):
    batches = loader(dataset(folder), num_workers=num_workers)
    first, second = keys(batches.epoch(0)), keys(batches.epoch(1))
    assert sorted(first) == sorted(second) == [f"{n:06d}" for n in range(31)]
    assert first != second


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_ranks_share_the_samples_and_make_equally_many_batches(folder, ranks):
    seen, lengths = [], []
    for rank in range(ranks):
        batches = list(loader(dataset(folder), rank=rank, world_size=ranks).epoch(3))
        seen += keys(batches)
        lengths.append(len(batches))
    assert sorted(seen) == [f"{n:06d}" for n in range(31)]
    assert len(set(lengths)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("resampled", [False, True])
def test_an_epoch_entered_in_the_middle_goes_on_as_it_would_have(folder, num_workers, resampled):
    data = dataset(folder, resampled=resampled, epoch_size=32 if resampled else None)
    batches = loader(data, num_workers=num_workers)
    whole = list(batches.epoch(2))
    for start in (1, 3, len(whole) - 1):
        rest = list(loader(data, num_workers=num_workers).epoch(2, start))
        assert keys(rest) == keys(whole[start:])
        assert all(
            torch.equal(a.samples["image"], b.samples["image"])
            for a, b in zip(rest, whole[start:], strict=True)
        )


def test_skipping_decodes_nothing(folder):
    opened = []
    data = dataset(folder)
    data.vis_processor = lambda image: opened.append(1) or torch.zeros(1)
    batches = loader(data)
    list(batches.epoch(0, batches.batches_per_epoch - 1))
    assert len(opened) <= 4


def test_fewer_shards_than_readers_are_refused_with_the_numbers(folder):
    with pytest.raises(ConfigError, match=r"5 shards .* 2 processes with 3 workers each \(6 readers\)"):
        loader(dataset(folder), world_size=2, num_workers=3)


def test_resampled_shards_have_no_end_and_need_no_counts(folder):
    (folder / "shard-000.tar").rename(folder / "only.tar")
    data = dataset(folder / "only.tar", resampled=True, epoch_size=40)
    batches = loader(data, world_size=2, rank=1)
    assert batches.batches_per_epoch == 5
    assert len(keys(batches.epoch(0))) == 20


def test_two_ranks_with_two_workers_see_every_sample_once(folder, tmp_path):
    script = tmp_path / "count.py"
    script.write_text(
        "import sys, json\n"
        f"sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}\n"
        "from test_web_shards import dataset, loader, keys\n"
        "from lavis_lite.common import distributed\n"
        "distributed.start('cpu')\n"
        "made = loader(dataset(sys.argv[1]), rank=distributed.rank(), world_size=distributed.world_size(),\n"
        "              num_workers=2)\n"
        "whole, rest = list(made.epoch(0)), list(made.epoch(0, 2))\n"
        "seen = distributed.gather_objects([keys(whole), keys(whole[:2]) + keys(rest)])\n"
        "if distributed.is_rank_zero():\n"
        "    print(json.dumps([[k for rank in seen for k in rank[i]] for i in (0, 1)]))\n"
        "distributed.stop()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    said = run([*command, str(script), str(folder)])
    assert said.returncode == 0, said.stderr[-2000:]
    for seen in json.loads(said.stdout.strip().splitlines()[-1]):
        assert sorted(seen) == [f"{n:06d}" for n in range(31)]


def test_a_text_may_be_a_field_of_the_json_or_one_of_several(folder):
    data = dataset(folder / "shard-000.tar", text_key="texts")
    batches = loader(data)
    said = [
        Counter(text.split()[0] for batch in batches.epoch(epoch) for text in batch.samples["text_input"])
        for epoch in range(6)
    ]
    assert sum(said, Counter()).keys() == {"ONE", "TWO"}
    assert keys(batches.epoch(0)) == keys(batches.epoch(0))


# Damage


def test_a_damaged_image_is_replaced_by_another_sample_and_noted(folder):
    write_tar(
        folder / "shard-001.tar",
        [
            {"key": "bad", "jpg": jpeg(3)[:200], "txt": b"a"},
            {"key": "mute", "jpg": jpeg(3), "txt": b"  "},
            {"key": "good", "jpg": jpeg(3), "txt": b"b"},
        ],
    )
    batches = list(loader(dataset(folder / "shard-001.tar")).epoch(0))
    assert keys(batches) == ["good"] * 3
    reasons = sorted(note.reason for batch in batches for note in batch.bad_samples)
    assert any("bad" in reason for reason in reasons) and any("mute" in reason for reason in reasons)


@pytest.mark.parametrize("kept", [0.3, 0.45, 0.6])
def test_a_shard_that_breaks_off_loses_only_its_tail(folder, kept):
    shard = folder / "shard-002.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: int(len(whole) * kept)])
    (found,) = list_shards([str(shard)])
    errors: list[str] = []
    read = list(raw_samples(found, errors.append))
    assert 0 < len(read) < 9 and len(read) == count_samples(found)
    whole_ones = [raw["__key__"] for raw in read if "txt" in raw]  # the cut may fall between image and text
    assert len(whole_ones) >= len(read) - 1
    assert sorted(set(keys(loader(dataset(shard)).epoch(0)))) == whole_ones


def test_what_an_index_promised_and_a_shard_does_not_hold_is_noted_and_made_up_for(folder):
    (folder / "index.json").write_text(json.dumps({"shards": [{"name": "shard-003.tar", "samples": 8}]}))
    batches = list(loader(dataset(folder / "shard-003.tar")).epoch(0))
    assert len(batches) == 2 and set(keys(batches)) == {f"{n:06d}" for n in range(21, 25)}


def test_what_is_no_tar_is_refused(tmp_path):
    (tmp_path / "shard.tar").write_text("no tar")
    with pytest.raises(ConfigError, match="is no tar file"):
        dataset(tmp_path / "shard.tar")


@pytest.fixture
def server():
    with running_server() as server:
        yield server


def remote(server, content: bytes) -> Shard:
    server.behaviour.content = content
    (shard,) = list_shards([server.url.replace("captions.json", "shard-000.tar")])
    return shard


def test_a_server_that_breaks_off_loses_nothing(server, folder):
    whole = (folder / "shard-002.tar").read_bytes()
    server.behaviour.cuts = [len(whole) // 3, len(whole) // 3]
    read = list(raw_samples(remote(server, whole), pytest.fail))
    assert [raw["__key__"] for raw in read] == [f"{n:06d}" for n in range(12, 21)]
    assert len(server.behaviour.requested) == 3


def test_a_shard_that_cannot_be_reached_is_noted_or_an_error(server, folder):
    shard = remote(server, (folder / "shard-002.tar").read_bytes())
    server.behaviour.answers = [(404, {}), (404, {})]
    noted: list[str] = []
    assert list(raw_samples(shard, noted.append)) == []
    assert "answers 404" in noted[0]
    with pytest.raises(OSError, match="answers 404"):
        list(raw_samples(shard, pytest.fail, whole_or_error=True))


def test_a_command_that_fails_is_an_error_though_its_archive_looks_whole(folder):
    command = f"pipe:cat {folder}/shard-001.tar; exit 7"
    (shard,) = list_shards([command], allow_pipe=True)
    with pytest.raises(OSError, match="ended with code 7"):
        list(raw_samples(shard, pytest.fail, whole_or_error=True))


# Trust


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/lavis_lite_bomb"),))


def test_nothing_but_images_and_texts_is_ever_decoded(tmp_path):
    bomb = pickle.dumps(Bomb())
    sample = {
        "key": "a",
        "jpg": jpeg(1),
        "txt": b"text",
        "pyd": bomb,
        "pth": bomb,
        "pickle": bomb,
        "npy": bomb,
    }
    shard = write_tar(tmp_path / "shard.tar", [sample])
    errors: list[str] = []
    (raw,) = raw_samples(list_shards([str(shard)])[0], errors.append)
    assert set(raw) == {"__key__", "__url__", "jpg", "txt"}
    assert [error.rpartition(": ")[2] for error in errors] == ["a.pyd", "a.pth", "a.pickle", "a.npy"]
    assert keys(loader(dataset(shard)).epoch(0)) == ["a"]
    assert not Path("/tmp/lavis_lite_bomb").exists()


def test_commands_run_only_where_they_are_allowed(folder):
    command = f"pipe:cat {folder}/shard-001.tar"
    with pytest.raises(ConfigError, match="allow_pipe"):
        list_shards([command])
    data = WebDataset(
        list_shards([command], allow_pipe=True),
        to_tensor,
        str,
        resampled=True,
        epoch_size=8,
        shuffle_buffer=0,
    )
    assert set(keys(loader(data).epoch(0))) <= {f"{n:06d}" for n in range(7, 12)}


def test_webdataset_itself_is_in_its_secure_mode():
    import webdataset.utils

    assert webdataset.utils.enforce_security
