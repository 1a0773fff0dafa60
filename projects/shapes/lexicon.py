"""The words for what a scene holds; of several, the first is the usual one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHAPES: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "cross": ("cross", "plus sign"),
    "heart": ("heart",),
}
COLOURS: dict[str, tuple[str, ...]] = {
    "red": ("red",),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "black": ("black",),
    "white": ("white",),
}
SIZES: dict[str, tuple[str, ...]] = {"large": ("large", "big"), "small": ("small", "little")}
COUNTS: dict[int, tuple[str, ...]] = {1: ("one", "a single"), 2: ("two",)}
PATTERNS: dict[str, tuple[str, ...]] = {
    "plain": ("plain",),
    "gradient": ("shaded",),
    "stripes": ("striped",),
    "checks": ("checkered", "checked"),
    "noise": ("mottled", "blurry"),
}
GROUNDS: tuple[str, ...] = ("background", "backdrop")
BEFORE_GROUND: tuple[str, ...] = ("on", "against")
PLACES: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"),
    "top": ("at the top", "near the top"),
    "bottom": ("at the bottom", "near the bottom"),
    "top left": ("at the top left", "in the upper left corner"),
    "top right": ("at the top right", "in the upper right corner"),
    "bottom left": ("at the bottom left", "in the lower left corner"),
    "bottom right": ("at the bottom right", "in the lower right corner"),
    "middle": ("in the middle", "in the center"),
}
# Where the main object is, seen from another one.
RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "near": ("next to", "beside", "near"),
}
# Where another object is, seen from the main one.
SIDES: dict[str, tuple[str, ...]] = {
    "left": ("to its left", "on its left"),
    "right": ("to its right", "on its right"),
    "above": ("above it", "over it"),
    "below": ("below it", "under it"),
    "near": ("next to it", "beside it"),
}
TABLES: tuple[Mapping[Any, tuple[str, ...]], ...] = (
    SHAPES,
    COLOURS,
    SIZES,
    COUNTS,
    PATTERNS,
    {"ground": GROUNDS, "before ground": BEFORE_GROUND},
    PLACES,
    RELATIONS,
    SIDES,
)


def plural(word: str) -> str:
    """Return the plural of a shape's word.

    >>> [plural(word) for word in ("star", "box", "cross", "plus sign")]
    ['stars', 'boxes', 'crosses', 'plus signs']
    """
    return word + ("es" if word.endswith(("s", "x")) else "s")
