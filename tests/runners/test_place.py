"""Where a resumed run continues in the data, when its batches are others than before."""

from __future__ import annotations

from pathlib import Path

import pytest
from shards import write_shards
from torch.utils.data import Dataset

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.datasets.loading import TrainLoader
from lavis_lite.datasets.mixing import MixedLoader
from lavis_lite.datasets.web.dataset import WebDataset
from lavis_lite.datasets.web.loader import WebTrainLoader
from lavis_lite.datasets.web.shards import Shard, list_shards
from lavis_lite.runners.changes import Change
from lavis_lite.runners.resuming import ResumePoint, find_place
from lavis_lite.runners.state import TrainState


class Numbers(Dataset):
    """Samples that know their number."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"instance_id": index}


def loader(size: int, batch_size: int, drop_last: bool = False) -> TrainLoader:
    return TrainLoader(Numbers(size), batch_size, seed=1, drop_last=drop_last)


def point(new_folder: bool = False, *changes: Change) -> ResumePoint:
    return ResumePoint(Path("out/checkpoint_00000005.pth"), {}, new_folder, list(changes))


def ids(batches) -> list[int]:
    return [number for batch in batches for number in batch.samples["instance_id"]]


def resumed(state: TrainState, now: TrainLoader) -> list[int]:
    """Return what the rest of epoch 0 gives, if any of it is left."""
    return ids(now.epoch(0, state.batch, state.skipped)) if state.epoch == 0 else []


@pytest.mark.slow
@pytest.mark.parametrize("size", [40, 41])
@pytest.mark.parametrize("before", [1, 4, 7])
@pytest.mark.parametrize("after", [1, 4, 7, 16, 100])
def test_with_batches_of_any_other_size_each_sample_is_seen_once(size, before, after):
    was, now = loader(size, before), loader(size, after)
    for batch in range(was.batches_per_epoch):
        seen = ids(was.epoch(0))[: batch * before]
        state = TrainState(step=batch, batch=batch)
        find_place(state, was.layout, now, point())
        assert sorted(seen + resumed(state, now)) == list(range(size))


def test_a_place_found_twice_is_the_same_place():
    """Batches of 4, then of 16, then of 4 again, in one epoch of 100 samples."""
    state = TrainState(step=17, batch=17)
    find_place(state, loader(100, 4).layout, loader(100, 16), point())
    assert (state.batch, state.skipped) == (4, 4)
    find_place(state, loader(100, 16).layout, loader(100, 4), point())
    assert (state.batch, state.skipped) == (17, 0)


def test_where_the_rest_fills_no_batch_the_epoch_is_over_and_validated():
    """38 of 40 samples are seen, and 2 make no batch of 16 that drop_last would leave in."""
    state = TrainState(step=19, batch=19)
    find_place(state, loader(40, 2).layout, loader(40, 16, drop_last=True), point())
    assert (state.epoch, state.batch, state.skipped, state.evaluation_due) == (1, 0, 0, True)


def test_at_the_beginning_of_an_epoch_any_batch_size_will_do():
    state = TrainState(step=10, epoch=2)
    find_place(state, loader(40, 4).layout, loader(40, 16), point())
    assert (state.epoch, state.batch, state.skipped) == (2, 0, 0)


@pytest.mark.parametrize("batch", [0, 3])
def test_data_that_grew_or_shrank_is_refused_in_the_same_folder(batch):
    with pytest.raises(ConfigError, match="had 40 samples and has 30 now"):
        find_place(TrainState(batch=batch), loader(40, 4).layout, loader(30, 4), point())


def test_in_a_new_folder_an_epoch_of_other_data_begins_again():
    state = TrainState(step=13, epoch=1, batch=3)
    find_place(state, loader(40, 4).layout, loader(30, 4), point(True))
    assert (state.epoch, state.batch) == (1, 0)
    state = TrainState(step=13, epoch=1, batch=3)
    find_place(state, loader(40, 4).layout, loader(40, 4), point(True, Change("run.seed", 1, 2)))
    assert (state.epoch, state.batch) == (1, 0)


def test_in_a_new_folder_the_same_data_continues_in_its_middle():
    state = TrainState(step=13, epoch=1, batch=3)
    change = Change("model.finetuned", "a.pth", "b.pth")
    find_place(state, loader(40, 4).layout, loader(40, 2), point(True, change))
    assert (state.epoch, state.batch) == (1, 6)


def test_a_mixture_is_not_entered_in_the_middle_with_other_batches():
    """Which data set a batch comes from is drawn by the number of the batch."""
    was = MixedLoader([loader(40, 4), loader(20, 4)], seed=1)
    now = MixedLoader([loader(40, 8), loader(20, 8)], seed=1)
    find_place(TrainState(epoch=1), was.layout, now, point())
    find_place(TrainState(batch=3), was.layout, was, point())
    with pytest.raises(ConfigError, match=r"middle of epoch 1.*global_batch was 4 and is now 8"):
        find_place(TrainState(batch=3), was.layout, now, point())
    state = TrainState(batch=3)
    find_place(state, was.layout, now, point(True))
    assert state.batch == 0


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list[Shard]:
    """Six shards of eight samples."""
    return list_shards([str(write_shards(tmp_path_factory.mktemp("shards"), [8] * 6))])


def web(shards: list[Shard], batch_size: int = 4, **settings) -> WebTrainLoader:
    resampled = settings.pop("resampled", False)
    data = WebDataset(shards, None, str, resampled=resampled, epoch_size=48 if resampled else None)
    return WebTrainLoader(data, batch_size, seed=1, **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_workers": 3}, "readers of each process was 2 and is now 3"),
        ({"num_workers": 2, "world_size": 2, "batch_size": 2}, "processes was 1 and is now 2"),
        ({"num_workers": 2, "batch_size": 8}, "batch_size_train was 4 and is now 8"),
    ],
)
def test_shards_read_by_others_are_not_entered_in_the_middle(shards, settings, said):
    """Each reader has shards of its own, so the samples seen would be others."""
    was, now = web(shards, num_workers=2), web(shards, **settings)
    find_place(TrainState(epoch=1), was.layout, now, point())
    with pytest.raises(ConfigError, match=said):
        find_place(TrainState(batch=5), was.layout, now, point())
    state = TrainState(batch=5)
    find_place(state, was.layout, web(shards, num_workers=2), point())
    assert state.batch == 5


def test_resampled_shards_are_entered_anywhere(shards):
    state = TrainState(batch=5)
    was, now = web(shards, resampled=True), web(shards, 8, num_workers=3, resampled=True)
    find_place(state, was.layout, now, point())
    assert (state.batch, state.skipped) == (2, 0)
