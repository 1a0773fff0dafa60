"""Loading: the same samples for every number of ranks and workers, from any place in an epoch."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from lavis_lite.datasets.loading import (
    Concatenated,
    TrainLoader,
    eval_loader,
)


class Numbers(Dataset):
    """Items that know their number and draw from every global generator; some cannot be read."""

    def __init__(self, size: int, bad: tuple[int, ...] = ()) -> None:
        self.size, self.bad = size, bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, object]:
        if index in self.bad:
            raise OSError(f"sample {index} is damaged")
        return {
            "instance_id": index,
            "noise": torch.tensor([torch.rand(()), random.random(), np.random.rand()]),
        }


def ids(batches) -> list[list[int]]:
    return [batch.samples["instance_id"] for batch in batches]


def flat(lists) -> list[int]:
    return [number for numbers in lists for number in numbers]


def test_an_epoch_holds_every_sample_once_in_an_order_of_its_own():
    loader = TrainLoader(Numbers(20), 5, seed=1)
    first, second = ids(loader.epoch(0)), ids(loader.epoch(1))
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(20))
    assert first != second
    assert ids(loader.epoch(0)) == first


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_out_the_same_global_batches(world_size):
    alone = ids(TrainLoader(Numbers(24), 8, seed=1).epoch(3))
    shares = [
        ids(TrainLoader(Numbers(24), 8 // world_size, seed=1, rank=rank, world_size=world_size).epoch(3))
        for rank in range(world_size)
    ]
    assert [flat(parts) for parts in zip(*shares, strict=True)] == alone


def test_an_epoch_can_be_taken_up_in_the_middle():
    loader = TrainLoader(Numbers(40), 4, seed=1)
    whole = list(loader.epoch(2))
    rest = list(loader.epoch(2, first_batch=6))
    assert ids(rest) == ids(whole)[6:]
    assert torch.equal(rest[0].samples["noise"], whole[6].samples["noise"])


@pytest.mark.parametrize("num_workers", [1, 3])
def test_augmentation_depends_on_the_sample_and_not_on_the_worker(num_workers):
    alone = list(TrainLoader(Numbers(12), 4, seed=1).epoch(0))
    others = list(TrainLoader(Numbers(12), 4, seed=1, num_workers=num_workers).epoch(0))
    assert all(
        torch.equal(a.samples["noise"], b.samples["noise"]) for a, b in zip(alone, others, strict=True)
    )


def test_augmentation_differs_between_epochs():
    loader = TrainLoader(Numbers(4), 4, seed=1)
    noise = [
        dict(zip(b.samples["instance_id"], b.samples["noise"], strict=True))
        for e in (0, 1)
        for b in loader.epoch(e)
    ]
    assert not torch.equal(noise[0][0], noise[1][0])


def test_loading_leaves_the_global_generators_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(TrainLoader(Numbers(8), 4, seed=1).epoch(0))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("drop_last", "batches"),
    [(True, [4, 4]), (False, [4, 4, 2])],
)
def test_an_incomplete_batch_is_left_out_or_kept(drop_last, batches):
    loader = TrainLoader(Numbers(10), 4, seed=1, drop_last=drop_last)
    assert [len(batch) for batch in ids(loader.epoch(0))] == batches


def test_fewer_samples_than_a_batch_still_train():
    assert [len(batch) for batch in ids(TrainLoader(Numbers(3), 16, seed=1).epoch(0))] == [3]


def test_a_rank_without_a_share_gets_a_filler():
    loaders = [TrainLoader(Numbers(5), 2, seed=1, rank=r, world_size=2, drop_last=False) for r in (0, 1)]
    last = [list(loader.epoch(0))[-1] for loader in loaders]
    assert sorted(batch.filler for batch in last) == [False, True]


def test_a_bad_sample_is_replaced_by_the_same_other_one_every_time():
    loader = TrainLoader(Numbers(12, bad=(3, 7)), 4, seed=1)
    first, again = list(loader.epoch(0)), list(loader.epoch(0))
    assert ids(first) == ids(again)
    assert [len(batch.samples["instance_id"]) for batch in first] == [4, 4, 4]
    notes = {note.index: note.reason for batch in first for note in batch.bad_samples}
    assert set(notes) == {3, 7}
    assert notes[3] == "OSError: sample 3 is damaged"


def test_evaluation_leaves_bad_samples_out_and_says_so():
    batches = list(eval_loader(Numbers(6, bad=(4, 5)), 2))
    assert flat(batch.samples.get("instance_id", []) for batch in batches) == [0, 1, 2, 3]
    assert [note.index for batch in batches for note in batch.bad_samples] == [4, 5]


@pytest.mark.parametrize("world_size", [2, 3])
def test_evaluation_reads_every_sample_on_one_rank_only(world_size):
    shares = [
        flat(ids(eval_loader(Numbers(11), 2, rank=rank, world_size=world_size))) for rank in range(world_size)
    ]
    assert sorted(flat(shares)) == list(range(11))


def test_data_sets_end_to_end_are_one():
    both = Concatenated([Numbers(3), Numbers(2)])
    assert [both[index]["instance_id"] for index in range(len(both))] == [0, 1, 2, 0, 1]
