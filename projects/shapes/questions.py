"""Ask about a scene, with answers that follow from it.

The plain questions are about the largest object and the number of objects, and suit a very small
model. The hard ones are also about the small objects, count by colour and shape, and ask who is where
seen from whom.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import lexicon
from .classes import kind_of, kinds_almost, with_article
from .scene import COLOURS, SHAPES, Scene, SceneObject, direction_of, place_of

# As the answers' accuracy is reported by type.
QUESTION_TYPES: tuple[str, ...] = ("color", "shape", "count", "size", "relation", "yes/no")
# So that "small" and "large" are answers about equally often, though many scenes have no small object.
_SMALL_CHANCE = 0.9
_ABSENT_CHANCE = 0.2
_MOST_OBJECTS = 3


@dataclass(frozen=True)
class Question:
    """A question about a scene, its only right answer, and one of `QUESTION_TYPES`."""

    text: str
    answer: str
    type: str


def ask(scene: Scene, rng: random.Random, question_type: str, hard: bool = False) -> Question | None:
    """Return a question of a type about `scene`, or None where the scene gives rise to none.

    Args:
        hard: ask about the small objects too, and about relations between objects.

    Raises:
        ValueError: an unknown type.
    """
    if question_type not in _ASKERS:
        raise ValueError(
            f"question type {question_type!r} is not known; give some of {', '.join(QUESTION_TYPES)}."
        )
    asked = _ASKERS[question_type](scene, rng, hard)
    return None if asked is None else Question(*asked, question_type)


def questions(
    scene: Scene, rng: random.Random, number: int, types: Sequence[str] = QUESTION_TYPES, hard: bool = False
) -> list[Question]:
    """Return up to `number` questions about `scene`, each of another type."""
    asked = (ask(scene, rng, question_type, hard) for question_type in rng.sample(types, len(types)))
    return [question for question in asked if question is not None][:number]


def all_answers(types: Sequence[str] = QUESTION_TYPES, hard: bool = False) -> list[str]:
    """Return every answer that questions of `types` can have."""
    answers = {
        "color": list(COLOURS),
        "shape": list(SHAPES),
        "count": [str(count) for count in range(0 if hard else 1, _MOST_OBJECTS + 1)],
        "size": ["large", "small"],
        "relation": [*lexicon.PLACES, *SHAPES] if hard else list(lexicon.PLACES),
        "yes/no": ["yes", "no"],
    }
    return list(dict.fromkeys(answer for question_type in types for answer in answers[question_type]))


def _ask_colour(scene: Scene, rng: random.Random, hard: bool) -> tuple[str, str] | None:
    item = _subject(scene, rng, hard)
    same = [other for other in scene.objects if other.shape == item.shape]
    name = _distinguished(scene, item, same, item.shape)
    return None if name is None else (f"what color is the {name}?", item.colour)


def _ask_shape(scene: Scene, rng: random.Random, hard: bool) -> tuple[str, str] | None:
    item = _subject(scene, rng, hard)
    same = [other for other in scene.objects if other.colour == item.colour]
    name = _distinguished(scene, item, same, f"{item.colour} object")
    return None if name is None else (f"what shape is the {name}?", item.shape)


def _ask_count(scene: Scene, rng: random.Random, hard: bool) -> tuple[str, str]:
    if not hard or rng.random() < 1 / 3:
        return "how many shapes are there?", str(len(scene.objects))
    absent = rng.random() < _ABSENT_CHANCE
    by_colour = rng.random() < 0.5
    seen = [item.colour if by_colour else item.shape for item in scene.objects]
    every = list(COLOURS) if by_colour else list(SHAPES)
    counted = rng.choice([name for name in every if name not in seen] if absent else seen)
    name = f"{counted} shapes" if by_colour else lexicon.plural(counted)
    return f"how many {name} are there?", str(seen.count(counted))


def _ask_size(scene: Scene, rng: random.Random, hard: bool) -> tuple[str, str]:
    small = [item for item in scene.others if _is_unique(scene, item)]
    item = rng.choice(small) if small and rng.random() < _SMALL_CHANCE else scene.main
    return f"is the {kind_of(item)} large or small?", "large" if item is scene.main else "small"


def _ask_relation(scene: Scene, rng: random.Random, hard: bool) -> tuple[str, str] | None:
    if hard and rng.random() < 0.5:
        return _ask_who_is_where(scene, rng)
    place = place_of(scene.main)
    return None if place is None else (f"where is the {kind_of(scene.main)}?", place)


def _ask_who_is_where(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    """Ask which shape is on a side of the largest object; None unless one alone is, clearly."""
    sides = [direction_of(item, seen_from=scene.main) for item in scene.others]
    if not sides or "near" in sides or len(set(sides)) < len(sides):
        return None
    chosen = rng.randrange(len(sides))
    relation = lexicon.RELATIONS[sides[chosen]][0]
    return f"what shape is {relation} the {kind_of(scene.main)}?", scene.others[chosen].shape


def _ask_yes_or_no(scene: Scene, rng: random.Random, hard: bool) -> tuple[str, str]:
    item = _subject(scene, rng, hard)
    if rng.random() < 0.5:
        return f"is there {with_article(kind_of(item))}?", "yes"
    there = {(other.colour, other.shape) for other in scene.objects}
    colour, shape = rng.choice([kind for kind in kinds_almost(item.colour, item.shape) if kind not in there])
    return f"is there {with_article(f'{colour} {shape}')}?", "no"


_ASKERS: dict[str, Callable[[Scene, random.Random, bool], tuple[str, str] | None]] = {
    "color": _ask_colour,
    "shape": _ask_shape,
    "count": _ask_count,
    "size": _ask_size,
    "relation": _ask_relation,
    "yes/no": _ask_yes_or_no,
}


def _subject(scene: Scene, rng: random.Random, hard: bool) -> SceneObject:
    return rng.choice(scene.objects) if hard else scene.main


def _distinguished(scene: Scene, item: SceneObject, alike: Sequence[SceneObject], name: str) -> str | None:
    """Return `name`, with a size before it where several are called so, None where that does not help."""
    if len(alike) == 1:
        return name
    if item is scene.main:
        return f"large {name}"
    return f"small {name}" if [other for other in alike if other is not scene.main] == [item] else None


def _is_unique(scene: Scene, item: SceneObject) -> bool:
    return [(other.colour, other.shape) for other in scene.objects].count((item.colour, item.shape)) == 1
