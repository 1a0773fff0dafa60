"""Read what a caption claims, and compare it with the scene."""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import lexicon
from .scene import Scene

_COLOUR_OF = {word: name for name, words in lexicon.COLOURS.items() for word in words}
_SHAPE_OF = {
    form: name
    for name, words in lexicon.SHAPES.items()
    for word in words
    for form in (word, lexicon.plural(word))
}
_VERBS = {"is", "are", "was", "were", "in", "colored", "coloured", "painted"}
# With these another thing begins: a colour before them is not that of a shape after them.
# fmt: off
_PHRASE_STARTS = {
    "a", "an", "the", "one", "two", "three", "on", "at", "to", "of", "with", "than", "against",
    "above", "over", "below", "under", "beside", "near", "next", "by",
}
# fmt: on
_MOST_WORDS_BETWEEN = 3
# Names of two words are tried first.
_TOKEN = re.compile(r"\b(?:" + "|".join(form for form in _SHAPE_OF if " " in form) + r")\b|[a-z]+")


@dataclass(frozen=True)
class Mention:
    """An object that a caption speaks of, in the names of a scene.

    Args:
        colour: None where the caption gives it none, or two that differ.
    """

    colour: str | None
    shape: str


def main_object_is_right(caption: str, scene: Scene) -> bool:
    """Return whether the first object of `caption` has the shape and colour of the scene's main one.

    >>> from shapes.scene import numbered_scene
    >>> scene = numbered_scene(seed=42, number=0)
    >>> scene.main.colour, scene.main.shape
    ('purple', 'heart')
    >>> main_object_is_right("The big heart on the left is violet.", scene)
    True
    >>> main_object_is_right("a yellow cross below a purple heart", scene)
    False
    """
    claimed = mentions(caption)
    return bool(claimed) and claimed[0] == Mention(scene.main.colour, scene.main.shape)


def mentions(caption: str) -> list[Mention]:
    """Return the objects that `caption` speaks of, in its order.

    A colour belongs to the shape that follows it closely ("a red, rather big circle"), or else to the
    one that is said to have it ("the circle on the left is red").

    >>> mentions("The box is blue and next to two small red plus signs.")
    [Mention(colour='blue', shape='square'), Mention(colour='red', shape='cross')]
    """
    reader = _Reader()
    for match in _TOKEN.finditer(caption.lower()):
        reader.read(match.group())
    return reader.found


class _Reader:
    """Follow a caption word by word."""

    def __init__(self) -> None:
        self.found: list[Mention] = []
        self._colours: set[str] = set()  # named, and waiting for their shape
        self._patience = 0  # how many words they still wait
        self._colour_is_due = False  # the last shape had none, and a verb like "is" has come

    def read(self, word: str) -> None:
        if word in _SHAPE_OF:
            self._read_shape(_SHAPE_OF[word])
        elif word in _COLOUR_OF:
            self._read_colour(_COLOUR_OF[word])
        elif word in _VERBS:
            self._colours.clear()
            self._colour_is_due = bool(self.found) and self.found[-1].colour is None
        elif word in _PHRASE_STARTS or self._patience == 0:
            self._colours.clear()
            self._colour_is_due &= word not in _PHRASE_STARTS
        else:
            self._patience -= 1

    def _read_shape(self, shape: str) -> None:
        colour = self._colours.pop() if len(self._colours) == 1 else None
        self.found.append(Mention(colour, shape))
        self._colours.clear()
        self._colour_is_due = False

    def _read_colour(self, colour: str) -> None:
        if self._colour_is_due:
            self.found[-1] = Mention(colour, self.found[-1].shape)
            self._colour_is_due = False
        else:
            self._colours.add(colour)
            self._patience = _MOST_WORDS_BETWEEN
