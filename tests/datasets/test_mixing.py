"""Several data sets in one run: by concatenation or ratio, files and shards together."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from shards import write_shards
from torch.utils.data import Dataset

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.datasets.mixing import train_loader
from lavis_lite.datasets.web.dataset import WebDataset
from lavis_lite.datasets.web.shards import list_shards


class Numbers(Dataset):
    def __init__(self, name: str, count: int) -> None:
        self.name, self.count = name, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        return {"image_id": f"{self.name}{index}"}


@pytest.fixture
def shards(tmp_path) -> WebDataset:
    folder = write_shards(tmp_path / "shards", [8, 8])
    data = WebDataset(list_shards([str(folder)]), lambda image: torch.zeros(1), str)
    data.name = "web"
    return data


def names(batches) -> list[str]:
    """Return which data set each batch came from; a batch has one."""
    found = []
    for batch in batches:
        (name,) = {"web" if name.isdigit() else name[0] for name in batch.samples["image_id"]}
        found.append(name)
    return found


def ids(batches) -> list[str]:
    return [name for batch in batches for name in batch.samples["image_id"]]


def test_without_ratios_files_are_joined_and_shards_take_turns_with_them(shards):
    data = [Numbers("a", 6), Numbers("b", 10), shards]
    loader = train_loader(data, 4, seed=0, drop_last=False)
    first, second = ids(loader.epoch(0)), ids(loader.epoch(1))
    everything = [
        *(f"a{n}" for n in range(6)),
        *(f"b{n}" for n in range(10)),
        *(f"{n:06d}" for n in range(16)),
    ]
    assert sorted(first) == sorted(second) == sorted(everything)
    assert loader.batches_per_epoch == 8


def test_with_ratios_batches_are_drawn_by_weight(shards):
    data = [Numbers("a", 400), shards]
    loader = train_loader(data, 4, seed=0, ratios={"a": 1, "web": 3})
    counts = Counter(name for epoch in range(4) for name in names(loader.epoch(epoch)))
    assert sum(counts.values()) == 4 * 104
    assert 0.68 < counts["web"] / sum(counts.values()) < 0.82


def test_each_data_set_goes_through_its_own_epochs(shards):
    loader = train_loader([Numbers("a", 40), shards], 4, seed=0, ratios={"a": 1, "web": 1})
    drawn = [name for epoch in range(3) for name in ids(loader.epoch(epoch))]
    of_the_web = [name for name in drawn if name.isdigit()]
    for start in range(0, len(of_the_web) - 16, 16):
        assert len(set(of_the_web[start : start + 16])) == 16


@pytest.mark.parametrize("ratios", [None, {"a": 2, "web": 1}])
def test_a_mixture_entered_anywhere_goes_on_as_it_would_have(shards, ratios):
    loader = train_loader([Numbers("a", 40), shards], 4, seed=1, ratios=ratios)
    whole = [list(loader.epoch(epoch)) for epoch in range(3)]
    for epoch, start in ((0, 3), (1, 0), (2, 9)):
        again = train_loader([Numbers("a", 40), shards], 4, seed=1, ratios=ratios)
        assert ids(again.epoch(epoch, start)) == ids(whole[epoch][start:])


def test_every_rank_takes_a_batch_from_the_same_data_set(shards):
    settings = {"seed": 0, "ratios": {"a": 1, "web": 1}, "world_size": 2}
    ranks = [train_loader([Numbers("a", 40), shards], 2, rank=rank, **settings) for rank in (0, 1)]
    assert names(ranks[0].epoch(1)) == names(ranks[1].epoch(1))


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        ({"a": 1, "wed": 1}, r"train_dataset_ratios\.wed: no data set of this run.*web"),
        ({"a": 1}, "has no weight for web"),
        ({"a": 1, "web": 0}, "must be above 0"),
    ],
)
def test_ratios_that_cannot_be_are_refused(shards, ratios, message):
    with pytest.raises(ConfigError, match=message):
        train_loader([Numbers("a", 4), shards], 2, seed=0, ratios=ratios)
