"""State something about two images, so that it is true of one pair and false of another.

The sentence comes first and the pairs are sought for it, one of each label. So every sentence is as
often true as false, and nobody can tell which by reading alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .classes import kinds_almost, with_article
from .scene import Scene

PLAIN_KINDS: tuple[str, ...] = ("both", "side", "each")
HARD_KINDS: tuple[str, ...] = ("only one", "more", "same color", "same shape")
STATEMENT_KINDS: tuple[str, ...] = PLAIN_KINDS + HARD_KINDS
# How often a sentence names colour and shape, a colour only, a shape only. Shapes are the harder ones.
_NAMED = {"both": 0.5, "colour": 0.35, "shape": 0.15}
_SCENE_TRIES = 40
_PAIR_TRIES = 60


@dataclass(frozen=True)
class Thing:
    """What a sentence speaks of; None for a colour or a shape that it leaves open."""

    colour: str | None
    shape: str | None

    def __str__(self) -> str:
        return with_article(" ".join(word for word in (self.colour, self.shape or "shape") if word))

    def is_in(self, scene: Scene) -> bool:
        """Return whether any object of `scene` is such a thing."""
        return any(
            self.colour in (None, item.colour) and self.shape in (None, item.shape) for item in scene.objects
        )


@dataclass(frozen=True)
class Statement:
    """A sentence about a left and a right image.

    Args:
        kind: one of `STATEMENT_KINDS`.
        things: what it speaks of: none, one, or for "each" two.
        side: "left" or "right", for the kinds that name an image.
    """

    kind: str
    things: tuple[Thing, ...] = ()
    side: str = ""

    def __str__(self) -> str:
        names = [str(thing) for thing in self.things]
        other_side = "right" if self.side == "left" else "left"
        return {
            "both": "both images show {}",
            "side": f"the {self.side} image shows {{}}",
            "each": "one image shows {} and the other shows {}",
            "only one": "only one image shows {}",
            "more": f"the {self.side} image shows more shapes than the {other_side} image",
            "same color": "the largest shapes of both images have the same color",
            "same shape": "the largest ones of both images have the same shape",
        }[self.kind].format(*names)

    def is_true(self, left: Scene, right: Scene) -> bool:
        """Return whether the sentence holds for a pair of images."""
        return _TESTS[self.kind](self, left, right)


def _is_each(statement: Statement, left: Scene, right: Scene) -> bool:
    first, second = statement.things
    return (first.is_in(left) and second.is_in(right)) or (first.is_in(right) and second.is_in(left))


def _is_more(statement: Statement, left: Scene, right: Scene) -> bool:
    difference = len(left.objects) - len(right.objects)
    return difference > 0 if statement.side == "left" else difference < 0


_TESTS: dict[str, Callable[[Statement, Scene, Scene], bool]] = {
    "both": lambda it, left, right: it.things[0].is_in(left) and it.things[0].is_in(right),
    "side": lambda it, left, right: it.things[0].is_in(left if it.side == "left" else right),
    "each": _is_each,
    "only one": lambda it, left, right: it.things[0].is_in(left) != it.things[0].is_in(right),
    "more": _is_more,
    "same color": lambda it, left, right: left.main.colour == right.main.colour,
    "same shape": lambda it, left, right: left.main.shape == right.main.shape,
}


class Pairs:
    """Find sentences and the pairs of `scenes` that they are true and false of.

    Args:
        scenes: at least 2; pairs are numbers in this list.
        near_misses: how often an image that does not show a thing of some colour and shape has a
            largest object that differs from it in one of them only.
    """

    def __init__(self, scenes: Sequence[Scene], near_misses: float = 0.0) -> None:
        self._scenes = scenes
        self._near_misses = near_misses
        self._by_kind: dict[tuple[str | None, str | None], list[int]] = {}
        for number, scene in enumerate(scenes):
            colour, shape = scene.main.colour, scene.main.shape
            for key in ((colour, shape), (colour, None), (None, shape), (None, None)):
                self._by_kind.setdefault(key, []).append(number)

    def draw(
        self, rng: random.Random, kinds: Sequence[str]
    ) -> tuple[Statement, tuple[int, int], tuple[int, int]]:
        """Return a sentence, a pair that it is true of, and a pair that it is false of.

        Raises:
            ValueError: too few scenes to find both.
        """
        for _ in range(_PAIR_TRIES):
            statement = self._statement(rng, rng.choice(kinds))
            true, false = self._pair(rng, statement, True), self._pair(rng, statement, False)
            if true is not None and false is not None:
                return statement, true, false
        raise ValueError(
            f"{len(self._scenes)} images are too few to make true and false pairs of; draw at least 20."
        )

    def _statement(self, rng: random.Random, kind: str) -> Statement:
        things = {"more": 0, "same color": 0, "same shape": 0, "each": 2}.get(kind, 1)
        side = rng.choice(("left", "right")) if kind in ("side", "more") else ""
        first, *rest = (self._thing(rng) for _ in range(max(things, 1)))
        if rest and rest[0] == first:
            return self._statement(rng, kind)
        return Statement(kind, (first, *rest)[:things], side)

    def _thing(self, rng: random.Random) -> Thing:
        main = rng.choice(self._scenes).main
        named = rng.choices(list(_NAMED), list(_NAMED.values()))[0]
        return Thing(None if named == "shape" else main.colour, None if named == "colour" else main.shape)

    def _pair(self, rng: random.Random, statement: Statement, wanted: bool) -> tuple[int, int] | None:
        """Return two different images of which `statement` is true, or false, or None if none is found."""
        for _ in range(_PAIR_TRIES):
            left, right = self._candidates(rng, statement, wanted)
            if left != right and statement.is_true(self._scenes[left], self._scenes[right]) == wanted:
                return left, right
        return None

    def _candidates(self, rng: random.Random, statement: Statement, wanted: bool) -> tuple[int, int]:
        """Return two images that may do."""
        if statement.kind == "both":
            return self._for_both(rng, statement.things[0], wanted)
        if statement.kind == "side":
            return self._for_side(rng, statement, wanted)
        if statement.kind == "each":
            return self._for_each(rng, statement.things, wanted)
        if statement.kind == "only one":
            return self._for_only_one(rng, statement.things[0], wanted)
        return self._for_comparison(rng, statement, wanted)

    def _for_both(self, rng: random.Random, thing: Thing, wanted: bool) -> tuple[int, int]:
        if wanted:
            return self._with(rng, thing), self._with(rng, thing)
        if rng.random() < 0.5:  # alike, so that likeness does not tell that it is true
            main = self._scenes[self._without(rng, thing)].main
            alike = Thing(thing.colour and main.colour, thing.shape and main.shape)
            return self._with(rng, alike), self._with(rng, alike)
        return _shuffled(rng, self._with(rng, thing), self._without(rng, thing))

    def _for_side(self, rng: random.Random, statement: Statement, wanted: bool) -> tuple[int, int]:
        thing = statement.things[0]
        meant = self._with(rng, thing) if wanted else self._without(rng, thing)
        # half of the time the other image would fit, so that one has to know which is meant
        other = self._with(rng, thing) if rng.random() < 0.5 else self._without(rng, thing)
        return (meant, other) if statement.side == "left" else (other, meant)

    def _for_each(self, rng: random.Random, things: Sequence[Thing], wanted: bool) -> tuple[int, int]:
        kept, changed = rng.sample(things, 2)
        second = self._with(rng, changed) if wanted else self._without(rng, changed)
        return _shuffled(rng, self._with(rng, kept), second)

    def _for_only_one(self, rng: random.Random, thing: Thing, wanted: bool) -> tuple[int, int]:
        if wanted:
            return _shuffled(rng, self._with(rng, thing), self._without(rng, thing))
        pick = self._with if rng.random() < 0.5 else self._without
        return pick(rng, thing), pick(rng, thing)

    def _for_comparison(self, rng: random.Random, statement: Statement, wanted: bool) -> tuple[int, int]:
        left = rng.randrange(len(self._scenes))
        main = self._scenes[left].main
        if statement.kind == "more" or not wanted:
            return left, rng.randrange(len(self._scenes))
        same = Thing(main.colour, None) if statement.kind == "same color" else Thing(None, main.shape)
        return left, self._with(rng, same)

    def _with(self, rng: random.Random, thing: Thing) -> int:
        """Return an image whose largest object is such a thing."""
        found = self._by_kind.get((thing.colour, thing.shape))
        return rng.choice(found or self._by_kind[None, None])

    def _without(self, rng: random.Random, thing: Thing) -> int:
        """Return an image without such a thing, now and then a near miss."""
        is_whole = thing.colour is not None and thing.shape is not None
        is_near = is_whole and rng.random() < self._near_misses
        for _ in range(_SCENE_TRIES):
            almost = rng.choice(kinds_almost(thing.colour, thing.shape)) if is_near else (None, None)
            number = self._with(rng, Thing(*almost))
            if not thing.is_in(self._scenes[number]):
                return number
        return rng.randrange(len(self._scenes))


def _shuffled(rng: random.Random, first: int, second: int) -> tuple[int, int]:
    return (first, second) if rng.random() < 0.5 else (second, first)
