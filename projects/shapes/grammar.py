"""Say what a scene shows, in many ways.

A caption is a frame of `FRAMES` whose slots (``{main}``, ``{relation}``) are filled with one of
several wordings. Every caption speaks of the main object first, by its shape and its colour; all else
may be left out. What is said is true.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from . import lexicon
from .scene import TINTS, Scene, SceneObject, direction_of, place_of

_CLEARLY_LARGE = 0.44
_USUAL_WORD_CHANCE = 0.7
_SIZE_CHANCE = 0.3
_EXTRA_CHANCE = 0.3
_VAGUE_DIRECTION_CHANCE = 0.15


@dataclass(frozen=True)
class Frame:
    """A sentence with slots, how often it is taken, and for which scenes it holds."""

    text: str
    weight: float = 1.0
    holds: Callable[[Scene], bool] = lambda scene: True


def _alone(scene: Scene) -> bool:
    return not scene.others


def _accompanied(scene: Scene) -> bool:
    return bool(scene.others)


def _pair(scene: Scene) -> bool:
    return len(scene.others) == 1


def _trio(scene: Scene) -> bool:
    return len(scene.others) == 2


def _twins(scene: Scene) -> bool:
    return _trio(scene) and len({(item.shape, item.colour) for item in scene.others}) == 1


def _placed(scene: Scene) -> bool:
    return place_of(scene.main) is not None


def _main_shape_is_unique(scene: Scene) -> bool:
    return all(item.shape != scene.main.shape for item in scene.others)


def _both(*conditions: Callable[[Scene], bool]) -> Callable[[Scene], bool]:
    return lambda scene: all(condition(scene) for condition in conditions)


def _not_twins(scene: Scene) -> bool:
    return not _twins(scene)


# {main}: "a big red circle"; {other}: one of the small objects, "a blue star"; {others}: both of them;
# {twins}: "two blue stars". A slot with "maybe_" is mostly empty.
FRAMES: tuple[Frame, ...] = (
    # the main object only
    Frame("{main} {ground}", 2),
    Frame("there is {main} {maybe_ground}"),
    Frame("{main} {place} {maybe_ground}", 1, _placed),
    Frame("there is {main} {place}", 0.5, _placed),
    Frame("{main} sits {place}", 0.5, _placed),
    Frame("the {main_shape} is {main_colour}", 0.5, _main_shape_is_unique),
    Frame("the {main_shape} {place} is {main_colour}", 0.4, _both(_placed, _main_shape_is_unique)),
    Frame("a {bare_ground} with {main}", 0.6),
    Frame("{one_main} {maybe_ground}", 1, _alone),
    Frame("{main} all alone {maybe_ground}", 0.7, _alone),
    Frame("there is nothing but {main} {maybe_ground}", 0.4, _alone),
    # one companion
    Frame("{main} {relation} {other} {maybe_ground}", 3, _accompanied),
    Frame("{main} with {other} {side}", 1.5, _accompanied),
    Frame("there is {main} {relation} {other}", 0.7, _accompanied),
    Frame("{the_main} is {relation} {the_other}", 1, _both(_accompanied, _not_twins)),
    Frame(
        "the {main_colour} {main_shape} is bigger than the {other_colour} {other_shape}",
        0.4,
        _both(_accompanied, _not_twins),
    ),
    Frame("{main} and {other} {maybe_ground}", 2, _pair),
    Frame(
        "the {main_shape} is {main_colour} and the {other_shape} is {other_colour}",
        0.5,
        _both(_pair, _main_shape_is_unique),
    ),
    Frame("two shapes , {main} and {other}", 0.4, _pair),
    Frame("there are two shapes and the larger one is a {main_colour} {main_shape}", 0.3, _pair),
    # two companions
    Frame("{main} and {twins} {maybe_ground}", 2.5, _twins),
    Frame("{main} with {twins}", 1.5, _twins),
    Frame("{one_main} and {twins}", 1, _twins),
    Frame("{main} , {others} {maybe_ground}", 2, _both(_trio, _not_twins)),
    Frame("{main} with {others}", 1, _both(_trio, _not_twins)),
    Frame("three shapes , {main} , {others}", 0.4, _both(_trio, _not_twins)),
    Frame("there are three shapes and the largest one is a {main_colour} {main_shape}", 0.4, _trio),
)

_SLOT = re.compile(r"\{\w+\}")
_SPACE_BEFORE_COMMA = re.compile(r" +,")
_ARTICLE_BEFORE_VOWEL = re.compile(r"\ba (?=[aeiou])")
_WORD = re.compile(r"[a-z]+")


def captions(scene: Scene, rng: random.Random, number: int = 5) -> list[str]:
    """Return `number` different captions of `scene`, each a true sentence.

    Raises:
        ValueError: so many different ones were not found.
    """
    frames = [frame for frame in FRAMES if frame.holds(scene)]
    weights = [frame.weight for frame in frames]
    found: dict[str, None] = {}
    for _ in range(50 * number):
        if len(found) == number:
            break
        frame = rng.choices(frames, weights)[0]
        found.setdefault(_sentence(frame.text.format_map(_Slots(scene, rng))))
    if len(found) < number:
        raise ValueError(f"number is {number}, but only {len(found)} captions were found; ask for fewer.")
    return list(found)


def all_words() -> set[str]:
    """Return every word that a caption can hold, in lower case."""
    texts = [phrase for table in lexicon.TABLES for phrases in table.values() for phrase in phrases]
    texts += [lexicon.plural(word) for words in lexicon.SHAPES.values() for word in words]
    texts += [_SLOT.sub(" ", frame.text) for frame in FRAMES]
    texts += [*TINTS, "a an the and"]
    return set(_WORD.findall(" ".join(texts)))


def _sentence(text: str) -> str:
    """Put right what filled slots leave: spaces, "a" before a vowel, the capital and the full stop."""
    text = _SPACE_BEFORE_COMMA.sub(",", " ".join(text.split()))
    text = _ARTICLE_BEFORE_VOWEL.sub("an ", text)
    return text[0].upper() + text[1:] + "."


class _Slots(dict[str, str]):
    """The slots of one caption, each worded when its frame asks for it."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        super().__init__()
        self._scene = scene
        self._rng = rng
        self._companion = rng.choice(scene.others) if scene.others else None

    def __missing__(self, slot: str) -> str:
        if slot.startswith("maybe_"):
            slot = slot.removeprefix("maybe_")
            return getattr(self, slot)() if self._rng.random() < _EXTRA_CHANCE else ""
        return getattr(self, slot)()

    def main(self) -> str:
        return f"a {self._kind(self._scene.main)}"

    def the_main(self) -> str:
        return f"the {self._kind(self._scene.main)}"

    def one_main(self) -> str:
        return f"{self._pick(lexicon.COUNTS[1])} {self._kind(self._scene.main)}"

    def main_shape(self) -> str:
        return self._shape(self._scene.main)

    def main_colour(self) -> str:
        return self._colour(self._scene.main)

    def other(self) -> str:
        return f"a {self._kind(self._the_companion())}"

    def the_other(self) -> str:
        return f"the {self._kind(self._the_companion())}"

    def other_shape(self) -> str:
        return self._shape(self._the_companion())

    def other_colour(self) -> str:
        return self._colour(self._the_companion())

    def others(self) -> str:
        return " and ".join(f"a {self._kind(item)}" for item in self._scene.others)

    def twins(self) -> str:
        twin = self._scene.others[0]
        shapes = lexicon.plural(self._shape(twin))
        return f"{self._pick(lexicon.COUNTS[2])} {self._size(twin)} {self._colour(twin)} {shapes}"

    def place(self) -> str:
        place = place_of(self._scene.main)
        assert place is not None, "a frame with a place was taken for a scene without"
        return self._pick(lexicon.PLACES[place])

    def relation(self) -> str:
        return self._pick(lexicon.RELATIONS[self._direction(self._scene.main, self._the_companion())])

    def side(self) -> str:
        return self._pick(lexicon.SIDES[self._direction(self._the_companion(), self._scene.main)])

    def ground(self) -> str:
        return f"{self._pick(lexicon.BEFORE_GROUND)} a {self.bare_ground()}"

    def bare_ground(self) -> str:
        background = self._scene.background
        tint, pattern = background.tint, self._pick(lexicon.PATTERNS[background.pattern])
        said = self._rng.choice((tint, pattern, f"{pattern} {tint}"))
        return f"{said} {self._pick(lexicon.GROUNDS)}"

    def _the_companion(self) -> SceneObject:
        assert self._companion is not None, "a frame with companions was taken for a scene without"
        return self._companion

    def _direction(self, item: SceneObject, seen_from: SceneObject) -> str:
        return "near" if self._rng.random() < _VAGUE_DIRECTION_CHANCE else direction_of(item, seen_from)

    def _kind(self, item: SceneObject) -> str:
        return f"{self._size(item)} {self._colour(item)} {self._shape(item)}"

    def _shape(self, item: SceneObject) -> str:
        return self._pick(lexicon.SHAPES[item.shape])

    def _colour(self, item: SceneObject) -> str:
        return self._pick(lexicon.COLOURS[item.colour])

    def _size(self, item: SceneObject) -> str:
        if self._rng.random() >= _SIZE_CHANCE:
            return ""
        if item is not self._scene.main:
            return self._pick(lexicon.SIZES["small"])
        clearly_large = self._scene.others or item.size >= _CLEARLY_LARGE
        return self._pick(lexicon.SIZES["large"]) if clearly_large else ""

    def _pick(self, wordings: Iterable[str]) -> str:
        """Return the first of `wordings` mostly, each of the others now and then."""
        usual, *rest = wordings
        return usual if not rest or self._rng.random() < _USUAL_WORD_CHANCE else self._rng.choice(rest)
