"""What is wrong with an annotation file, told once for all of its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# How many places, and how many different errors, one message names before it only counts them.
NAMED = 5


class AnnotationError(ValueError):
    """An annotation that cannot be used; the message names file, place and key."""


@dataclass(frozen=True)
class Records:
    """The records of one annotation file, as they were read and not yet checked.

    Attributes:
        path: the file.
        records: in the order of the file.
        unit: what errors call the place of a record: "line", "annotation", "key".
        labels: the place of each record; None where it is the index, from 0.
    """

    path: Path
    records: Sequence[Any]
    unit: str = "annotation"
    labels: Sequence[Any] | None = None

    def __len__(self) -> int:
        return len(self.records)

    def label(self, index: int) -> str:
        """Return the place of record `index`, as errors name it."""
        return repr(index if self.labels is None else self.labels[index])

    def where(self, index: int) -> str:
        """Return the file and the place of record `index`, as errors begin."""
        return f"{self.path}: {self.unit} {self.label(index)}"


@dataclass
class ErrorList:
    """Errors of one file, raised together: each text once, with the places where it holds.

    Attributes:
        source: the file, folder or data set.
        unit: what a place is: "line", "annotation", "file".
    """

    source: Path | str
    unit: str
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, place: str, text: str) -> None:
        """Note an error. `text` is what follows the place, punctuation included (": is empty")."""
        self.places.setdefault(text, []).append(place)

    def message(self) -> str:
        """Return one line for each text, up to `NAMED` of them, and the count of the others."""
        lines = [self._line(text) for text in list(self.places)[:NAMED]]
        further = [place for text in list(self.places)[NAMED:] for place in self.places[text]]
        if further:
            lines.append(f"{self.source}: {listed(further, self.unit)} cannot be used for other reasons.")
        return "\n".join(lines)

    def raise_if_any(self) -> None:
        """Raise what was noted.

        Raises:
            AnnotationError: something was.
        """
        if self.places:
            raise AnnotationError(self.message())

    def _line(self, text: str) -> str:
        return f"{self.source}: {listed(self.places[text], self.unit)}{text}"


def listed(names: Sequence[str], unit: str = "", limit: int = NAMED) -> str:
    """Return the first `limit` names, and how many others there are.

    >>> listed(["2"], "line"), listed(["2", "7", "9"], "line", limit=2)
    ('line 2', 'lines 2, 7 and 1 more')
    """
    shown = ", ".join(names[:limit])
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    plural = "s" if unit and len(names) > 1 else ""
    return f"{unit}{plural} {shown}{more}".strip()
