"""The first samples of a data set, and how an error in reading or using them is said in a sentence."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from lavis_lite.common.files import first_line


class FirstSamples(Dataset):
    """The first `count` samples of a data set; else it is that data set."""

    def __init__(self, dataset: Any, count: int) -> None:
        self.dataset = dataset
        self.count = count

    @classmethod
    def of(cls, dataset: Any, count: int) -> Any:
        """Return the first samples: by the data set's own `first(count)`, if it has one."""
        if len(dataset) <= count:
            return dataset
        return dataset.first(count) if hasattr(dataset, "first") else cls(dataset, count)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name == "dataset" or name.startswith("__"):  # while it is unpickled, there is none
            raise AttributeError(name)
        return getattr(self.dataset, name)


@dataclass
class ReadingError:
    """What went wrong in a worker that read a batch, as a sentence."""

    text: str


class FirstBatch(Dataset):
    """One item: the first of `batches`, or a `ReadingError`."""

    def __init__(self, batches: Iterator[dict[str, Any]]) -> None:
        self.batches = batches

    @staticmethod
    def workers_are_forked() -> bool:
        """Return whether a worker inherits `batches`; elsewhere it would have to be pickled."""
        return multiprocessing.get_start_method() == "fork"

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, Any] | ReadingError:
        try:
            return next(self.batches)
        except StopIteration:
            return ReadingError("gives no batch.")
        except KeyError as error:
            return ReadingError(f"a sample has no {error.args[0]!r}, which others have ({_place(error)}).")
        except Exception as error:
            return ReadingError(f"a sample cannot be read: {explain(error)}")


def explain(error: BaseException) -> str:
    """Return what `error` says; of one that is not our own message, with its type and place."""
    text = first_line(error, limit=1000)
    if _is_own(error):
        return text
    return f"{type(error).__name__}: {text} ({_place(error)})."


def _is_own(error: BaseException) -> bool:
    """Return whether this package raised `error`, with a message of its own."""
    frames = list(traceback.walk_tb(error.__traceback__))
    module = frames[-1][0].f_globals.get("__name__", "") if frames else ""
    raised_here = module.startswith("lavis_lite.") and isinstance(error, ValueError)
    return raised_here or type(error).__module__.startswith("lavis_lite.")


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "no place known"
