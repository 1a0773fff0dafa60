"""The checkpoints of a run: the newest that can be used is found, and the last good one is never deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lavis_lite.common.checkpoint.store import CheckpointError, CheckpointStore


def save(store: CheckpointStore, step: int) -> Path:
    return store.save({"model": {"a": torch.full((2000,), float(step))}, "step": step}, step)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def names(store: CheckpointStore) -> list[str]:
    return sorted(file.name for file in store.folder.iterdir())


def test_the_newest_whole_one_is_loaded_and_damaged_ones_are_set_aside(tmp_path, caplog):
    store = CheckpointStore(tmp_path, keep=None)
    paths = [save(store, step) for step in (3, 5, 7)]
    for path in paths[1:]:
        damage(path)
    path, content = store.load_newest()
    assert (path, content["step"]) == (paths[0], 3)
    assert names(store) == [
        "checkpoint_00000003.pth",
        "checkpoint_00000005.pth.damaged",
        "checkpoint_00000007.pth.damaged",
    ]
    for path in paths[1:]:
        assert f"{path}: the file is damaged" in caplog.text
        assert f"It is now called {path.name}.damaged" in caplog.text


def test_with_one_to_keep_a_damaged_one_of_a_later_step_costs_no_good_one(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    damage(save(store, 50))
    save(store, 6)
    save(store, 7)
    assert "checkpoint_00000007.pth" in names(store)
    assert "checkpoint_00000006.pth" not in names(store)
    _, content = CheckpointStore(tmp_path, keep=1).load_newest()
    assert content["step"] == 7
    save(store, 51)
    assert names(store) == ["checkpoint_00000050.pth.damaged", "checkpoint_00000051.pth"]


def test_none_is_left_where_all_are_damaged(tmp_path):
    store = CheckpointStore(tmp_path)
    damage(save(store, 1))
    assert store.load_newest() is None
    assert names(store) == ["checkpoint_00000001.pth.damaged"]


def test_a_content_that_no_run_can_go_on_from_counts_as_damaged(tmp_path, caplog):
    def check(content: dict) -> None:
        if content["step"] > 1:
            raise CheckpointError("is damaged: its part 'state' is missing.")

    store = CheckpointStore(tmp_path)
    save(store, 1)
    later = save(store, 2)
    assert store.load_newest(check)[1]["step"] == 1
    assert f"{later}: is damaged: its part 'state' is missing." in caplog.text


def test_somebodys_copies_are_neither_loaded_nor_deleted(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    copy = tmp_path / "checkpoint_00000009_copy.pth"
    copy.write_bytes(save(store, 9).read_bytes())
    save(store, 10)
    save(store, 11)
    assert copy.is_file()
    assert [path.name for path in store.steps()] == ["checkpoint_00000011.pth"]


def test_steps_of_more_digits_are_newer(tmp_path):
    store = CheckpointStore(tmp_path, keep=None)
    for step in (99_999_999, 100_000_000):
        save(store, step)
    assert store.load_newest()[1]["step"] == 100_000_000


class Countdown:
    """Wraps functions so that the n-th call of any of them ends like a kill, before it does anything."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **settings: Any) -> Any:
            self.calls -= 1
            if self.calls == 0:
                raise KeyboardInterrupt
            return function(*arguments, **settings)

        return call


@pytest.mark.parametrize("calls", range(1, 12))
def test_a_kill_at_any_file_operation_leaves_one_that_loads(tmp_path, calls):
    store = CheckpointStore(tmp_path, keep=1)
    save(store, 4)
    countdown = Countdown(calls)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        for name in ("replace", "unlink", "open"):
            patch.setattr(Path, name, countdown.wrap(getattr(Path, name)))
        for step in range(5, 20):
            save(store, step)
    assert CheckpointStore(tmp_path, keep=1).load_newest()[1]["step"] >= 4
