"""The records of an annotation file, and errors that name the records they are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# How many records, and how many different errors, a message lists before it only counts the rest.
NAMED = 5


class AnnotationError(ValueError):
    """An annotation that cannot be used; the message names file, record and key."""


@dataclass(frozen=True)
class Records:
    """The records of an annotation file, read but not yet checked.

    Attributes:
        path: the file.
        records: in the order of the file.
        unit: what the labels count: "line", "annotation", "key".
        labels: the line or key of each record; None for its index, from 0.
    """

    path: Path
    records: Sequence[Any]
    unit: str = "annotation"
    labels: Sequence[Any] | None = None

    def label(self, index: int) -> str:
        """Return the label of record `index`, as errors show it."""
        return repr(index if self.labels is None else self.labels[index])


@dataclass
class ErrorList:
    """Errors of one source, raised together: each text once, with the records that it holds for.

    Attributes:
        source: the file, folder or data set.
        unit: what a label counts: "line", "annotation", "file".
        labels: error text -> labels of its records.
    """

    source: Path | str
    unit: str
    labels: dict[str, list[str]] = field(default_factory=dict)

    def add(self, label: object, text: str) -> None:
        """Add an error. `text` follows the label, punctuation included (": is empty")."""
        self.labels.setdefault(text, []).append(str(label))

    def message(self) -> str:
        """Return one line for each of the first `NAMED` texts, and the records of all others in one."""
        texts = list(self.labels)
        lines = [f"{self.source}: {listed(self.labels[text], self.unit)}{text}" for text in texts[:NAMED]]
        others = [label for text in texts[NAMED:] for label in self.labels[text]]
        if others:
            lines.append(f"{self.source}: {listed(others, self.unit)} cannot be used for other reasons.")
        return "\n".join(lines)

    def raise_if_any(self) -> None:
        """Raise `AnnotationError` if an error was added."""
        if self.labels:
            raise AnnotationError(self.message())


def listed(names: Sequence[str], unit: str = "", limit: int = NAMED) -> str:
    """Return the first `limit` names, and how many others there are.

    >>> listed(["2"], "line"), listed(["2", "7", "9"], "line", limit=2)
    ('line 2', 'lines 2, 7 and 1 more')
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    plural = "s" if unit and len(names) > 1 else ""
    return f"{unit}{plural} {', '.join(names[:limit])}{more}".strip()
