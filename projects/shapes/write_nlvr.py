"""Write statements about pairs of drawn images, in the layout of NLVR2.

==========================================  =====================================================
``annotations/shapes_nlvr_train.json``      one ``{"sentence", "images": [left, right], "label",
                                            "identifier", "statement_kind"}`` a pair, the label
                                            being "True" or "False"; val and test too
``scenes/train.jsonl``                      what each image shows; val and test too
``images/train/000030000000.jpg``           the images, each in several pairs
==========================================  =====================================================

No statement speaks of left and right within an image, so that swapping the images together with the
words "left" and "right" keeps it as true as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .scene import numbered_rng
from .statements import PLAIN_KINDS, STATEMENT_KINDS, Pairs
from .write_images import (
    SPLITS,
    Picture,
    check_sizes,
    pictures_of,
    write_pictures,
)
from .write_once import write_json, write_once

# So that every kind of thing is likely to be found among them.
_LEAST_IMAGES = 60


@dataclass
class NLVRSettings:
    """All that the files depend on.

    Args:
        train_pairs: how many the split has, an even number; so `val_pairs` and `test_pairs`.
        drawn_size: pixels a side.
        statement_kinds: some of `STATEMENT_KINDS`.
        near_misses: how often an image that fails a statement does so by a colour or a shape only.
    """

    version = 1  # no field: count up whenever one seed no longer gives the same files
    seed: int = 42
    train_pairs: int = 12000
    val_pairs: int = 400
    test_pairs: int = 800
    drawn_size: int = 64
    statement_kinds: tuple[str, ...] = PLAIN_KINDS
    near_misses: float = 0.1

    def check(self) -> list[tuple[str, str]]:
        """Return complaints about values that cannot be."""
        counts = ("train_pairs", "val_pairs", "test_pairs")
        complaints = check_sizes(self, *counts)
        for name in counts:
            if getattr(self, name) % 2:
                text = f"is {getattr(self, name)}; give an even number, half are true and half false."
                complaints.append((name, text))
        kinds = self.statement_kinds
        if not kinds or set(kinds) - set(STATEMENT_KINDS):
            text = f"is {', '.join(kinds) or 'empty'}; give some of {', '.join(STATEMENT_KINDS)}."
            complaints.append(("statement_kinds", text))
        if not 0 <= self.near_misses <= 1:
            complaints.append(("near_misses", f"is {self.near_misses}; give a share from 0 to 1."))
        return complaints


def write_nlvr(folder: str | Path, settings: NLVRSettings) -> Path:
    """Write the data set into `folder`, if it is not there yet, and return the folder.

    Raises:
        ShapesError: settings that cannot be, or a folder that holds something else.
    """
    return write_once("shapes_nlvr", folder, settings, lambda aside: _write_all(aside, settings))


def _write_all(folder: Path, settings: NLVRSettings) -> None:
    for split in SPLITS:
        pairs = getattr(settings, f"{split}_pairs")
        pictures = pictures_of("nlvr", split, settings.seed, max(_LEAST_IMAGES, pairs) if pairs else 0)
        write_pictures(folder, split, pictures, settings.drawn_size)
        records = list(_records(split, pictures, pairs, settings))
        write_json(records, folder / "annotations" / f"shapes_nlvr_{split}.json")


def _records(
    split: str, pictures: Sequence[Picture], pairs: int, settings: NLVRSettings
) -> Iterator[dict[str, Any]]:
    finder = Pairs([picture.scene for picture in pictures], settings.near_misses)
    for number in range(pairs // 2):
        # a split has its own stretch of numbers, whatever the sizes of the others
        rng = numbered_rng(settings.seed, number, f"statement {split}")
        statement, true, false = finder.draw(rng, settings.statement_kinds)
        answered = [("True", true), ("False", false)]
        rng.shuffle(answered)
        for index, (label, (left, right)) in enumerate(answered):
            yield {
                "sentence": str(statement),
                "images": [pictures[left].image, pictures[right].image],
                "label": label,
                "identifier": f"{split}-{number}-{index}",
                "statement_kind": statement.kind,
            }
