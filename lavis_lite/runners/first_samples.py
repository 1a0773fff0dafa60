"""The first samples of a data set, and errors in reading them as one sentence."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from lavis_lite.common.batch import Batch
from lavis_lite.common.files import first_line


class FirstSamples(Dataset):
    """A data set cut to its first `count` samples; its other attributes are unchanged."""

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
        if name == "dataset" or name.startswith("__"):  # not set yet while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)


@dataclass
class ReadingError:
    """An error of a worker that read a batch, as a sentence."""

    text: str


class FirstBatch(Dataset):
    """One item: the first of `batches`, or a `ReadingError`."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.batches = batches

    @staticmethod
    def workers_are_forked() -> bool:
        """Return True if a worker inherits `batches`; otherwise they would have to be pickled."""
        return multiprocessing.get_start_method() == "fork"

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Batch | ReadingError:
        try:
            return next(self.batches)
        except StopIteration:
            return ReadingError("gives no batch.")
        except KeyError as error:
            line = _line_of(error)
            return ReadingError(f"a sample has no {error.args[0]!r}, which others have ({line}).")
        except Exception as error:
            return ReadingError(f"a sample cannot be read: {explain(error)}")


def explain(error: BaseException) -> str:
    """Return the message of `error`; with its type and line unless this package wrote the message."""
    text = first_line(error, limit=1000)
    frames = list(traceback.walk_tb(error.__traceback__))
    raised_in = frames[-1][0].f_globals.get("__name__", "") if frames else ""
    raised_by_us = raised_in.startswith("lavis_lite.") and isinstance(error, ValueError)
    if raised_by_us or type(error).__module__.startswith("lavis_lite."):
        return text
    return f"{type(error).__name__}: {text} ({_line_of(error)})."


def _line_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "unknown line"
