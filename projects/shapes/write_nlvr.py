"""Statements about pairs of drawn images, in the layout of NLVR2.

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
from typing import Any, ClassVar

from .pictures import SPLITS, Picture, draw_pictures, numbers_of
from .scene import numbered_rng
from .statements import PLAIN_KINDS, STATEMENT_KINDS, Pairs
from .write_once import DrawnSettings, check_sizes, write_json

# Enough that every color and shape is likely to occur.
_LEAST_IMAGES = 60


@dataclass
class NLVRSettings(DrawnSettings):
    """All that the files depend on.

    Attributes:
        train_pairs, val_pairs, test_pairs: how many pairs each split has, an even number.
        drawn_size: width and height of the images in pixels.
        statement_kinds: some of `STATEMENT_KINDS`.
        near_misses: share of the images failing a statement that fail it by a color or a shape only.
    """

    data_set: ClassVar[str] = "shapes_nlvr"
    train_pairs: int = 12000
    val_pairs: int = 400
    test_pairs: int = 800
    drawn_size: int = 64
    statement_kinds: tuple[str, ...] = PLAIN_KINDS
    near_misses: float = 0.1

    def check(self) -> list[tuple[str, str]]:
        """Return an error for each value that cannot be drawn."""
        counts = ("train_pairs", "val_pairs", "test_pairs")
        errors = check_sizes(self, *counts)
        for name in counts:
            if getattr(self, name) % 2:
                text = f"is {getattr(self, name)}; give an even number, half are true and half false."
                errors.append((name, text))
        kinds = self.statement_kinds
        if not kinds or set(kinds) - set(STATEMENT_KINDS):
            text = f"is {', '.join(kinds) or 'empty'}; give some of {', '.join(STATEMENT_KINDS)}."
            errors.append(("statement_kinds", text))
        if not 0 <= self.near_misses <= 1:
            errors.append(("near_misses", f"is {self.near_misses}; give a share from 0 to 1."))
        return errors

    def write(self, folder: Path) -> None:
        """Write all files into `folder`."""
        for split in SPLITS:
            pairs = getattr(self, f"{split}_pairs")
            numbers = numbers_of(self.data_set, split, max(_LEAST_IMAGES, pairs) if pairs else 0)
            pictures = draw_pictures(folder, split, self.seed, numbers, self.drawn_size)
            records = list(self._records(split, pictures, pairs))
            write_json(records, folder / "annotations" / f"shapes_nlvr_{split}.json")

    def _records(self, split: str, pictures: Sequence[Picture], pairs: int) -> Iterator[dict[str, Any]]:
        finder = Pairs([picture.scene for picture in pictures], self.near_misses)
        for number in range(pairs // 2):
            # The split is part of the purpose: its statements do not depend on the sizes of the others.
            rng = numbered_rng(self.seed, number, f"statement {split}")
            statement, true, false = finder.draw(rng, self.statement_kinds)
            labeled = [("True", true), ("False", false)]
            rng.shuffle(labeled)
            for index, (label, (left, right)) in enumerate(labeled):
                yield {
                    "sentence": str(statement),
                    "images": [pictures[left].image, pictures[right].image],
                    "label": label,
                    "identifier": f"{split}-{number}-{index}",
                    "statement_kind": statement.kind,
                }
