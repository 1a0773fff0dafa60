"""What a drawn world holds, and how one is drawn by lot.

All lengths are fractions of the image's side, x to the right and y down. Only `random.Random` and
plain arithmetic decide, so a seed means the same scenes on every platform.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lavis_lite.common.config.schema import parse

Colour = tuple[int, int, int]

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "heart")

COLOURS: dict[str, Colour] = {
    "red": (218, 38, 38),
    "orange": (248, 138, 24),
    "yellow": (246, 222, 40),
    "green": (34, 158, 58),
    "blue": (38, 76, 222),
    "purple": (136, 46, 176),
    "black": (24, 24, 24),
    "white": (248, 248, 248),
}

# The two shades between which a background varies. No name is also an object's colour, so that a
# caption's colour word says of what it speaks.
TINTS: dict[str, tuple[Colour, Colour]] = {
    "gray": ((126, 130, 134), (162, 166, 170)),
    "pink": ((228, 152, 178), (244, 184, 202)),
    "beige": ((196, 174, 138), (220, 200, 166)),
    "teal": ((66, 138, 146), (96, 170, 176)),
    "brown": ((110, 78, 58), (142, 106, 82)),
    "lavender": ((160, 150, 206), (188, 180, 226)),
}

PATTERNS: tuple[str, ...] = ("plain", "gradient", "stripes", "checks", "noise")
Pattern = Literal["plain", "gradient", "stripes", "checks", "noise"]

MAIN_SIZES = (0.38, 0.50)
OTHER_SIZES = (0.17, 0.22)
# Half of `size` times this holds every shape at every tilt.
REACH = 1.36
LEAST_CONTRAST = 180
MOST_COLOUR_JITTER = 8
_LARGEST_TILT = {"circle": 0, "square": 8, "triangle": 14, "star": 16, "cross": 12, "heart": 12}
_GAP = 0.02
_CENTRAL = 0.07
_OFF_CENTRE = 0.11
_CLEAR_SLOPE = 1.5
_COUNT_CHANCES = (0.35, 0.40, 0.25)
_TWINS_CHANCE = 0.35
_PLACEMENT_TRIES = 60


@dataclass(frozen=True)
class SceneObject:
    """One shape.

    Args:
        size: about its width; shapes of one size look equally big.
        tilt: degrees clockwise.
        rgb: the colour as painted, a little off the one that `COLOURS` has for `colour`.
    """

    shape: str
    colour: str
    x: float
    y: float
    size: float
    tilt: float
    rgb: Colour

    @property
    def reach(self) -> float:
        """Radius of a circle around (x, y) that holds the object."""
        return self.size / 2 * REACH


@dataclass(frozen=True)
class Background:
    """What lies behind the objects.

    Args:
        tint: a name from `TINTS`.
        angle: direction of gradients and stripes, in degrees.
        cells: how many stripes, checks or specks a side has.
        noise_seed: of the specks.
    """

    pattern: Pattern
    tint: str
    angle: int
    cells: int
    noise_seed: int


@dataclass(frozen=True)
class Scene:
    """A background and one to three objects that do not touch; the first is clearly the largest."""

    background: Background
    objects: tuple[SceneObject, ...]

    @property
    def main(self) -> SceneObject:
        """The largest object, of which every caption speaks first."""
        return self.objects[0]

    @property
    def others(self) -> tuple[SceneObject, ...]:
        """The small objects."""
        return self.objects[1:]

    def to_json(self) -> dict[str, Any]:
        """Return the scene as what `json.dumps` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Scene:
        """Return the scene that `to_json` wrote.

        Raises:
            ConfigError: a key or a value that no scene has.
        """
        return parse(cls, values, where="scene")

    def check(self) -> list[tuple[str, str]]:
        """Return what names nothing that can be drawn."""
        found = [] if self.objects else [("objects", "a scene has at least one object.")]
        if self.background.tint not in TINTS:
            found.append(("background.tint", f"is {self.background.tint!r}, not one of {', '.join(TINTS)}."))
        for i, item in enumerate(self.objects):
            if item.shape not in SHAPES:
                found.append((f"objects[{i}].shape", f"is {item.shape!r}, not one of {', '.join(SHAPES)}."))
            if item.colour not in COLOURS:
                found.append(
                    (f"objects[{i}].colour", f"is {item.colour!r}, not one of {', '.join(COLOURS)}.")
                )
        return found


def numbered_rng(seed: int, number: int, purpose: str) -> random.Random:
    """Return the generator that decides `purpose` ("scene", "captions") for image `number`."""
    return random.Random(f"shapes {seed} {number} {purpose}")


def numbered_scene(seed: int, number: int) -> Scene:
    """Return scene `number` of the world `seed`; it depends on nothing else."""
    return sample_scene(numbered_rng(seed, number, "scene"))


def sample_scene(rng: random.Random) -> Scene:
    """Draw a scene by lot."""
    count = rng.choices((1, 2, 3), _COUNT_CHANCES)[0]
    kinds = _sample_kinds(rng, count)
    background = _sample_background(rng, {colour for _, colour in kinds})
    objects = None
    while objects is None:
        objects = _place(rng, kinds)
    return Scene(background, objects)


def contrast(first: Colour, second: Colour) -> int:
    """Return how different two colours look, 0 to about 765 (black on white).

    A Euclidean distance whose red and blue weights depend on the mean red, in whole numbers.
    """
    red, green, blue = (a - b for a, b in zip(first, second, strict=True))
    mean_red = (first[0] + second[0]) // 2
    squared = ((512 + mean_red) * red**2 >> 8) + 4 * green**2 + ((767 - mean_red) * blue**2 >> 8)
    return int(squared**0.5)


def tints_for(colours: set[str]) -> list[str]:
    """Return the backgrounds' tints on which all of `colours` stand out."""
    return [
        name
        for name, shades in TINTS.items()
        if all(contrast(COLOURS[colour], shade) >= LEAST_CONTRAST for colour in colours for shade in shades)
    ]


def _sample_kinds(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """Draw (shape, colour) of each object; no small one looks like the main one."""
    while True:
        kinds = [(rng.choice(SHAPES), rng.choice(list(COLOURS))) for _ in range(count)]
        if count == 3 and rng.random() < _TWINS_CHANCE:
            kinds[2] = kinds[1]
        if kinds[0] not in kinds[1:] and tints_for({colour for _, colour in kinds}):
            return kinds


def _sample_background(rng: random.Random, colours: set[str]) -> Background:
    return Background(
        pattern=rng.choice(PATTERNS),
        tint=rng.choice(tints_for(colours)),
        angle=rng.choice((0, 45, 90, 135)),
        cells=rng.randint(4, 9),
        noise_seed=rng.randrange(2**31),
    )


def _place(rng: random.Random, kinds: list[tuple[str, str]]) -> tuple[SceneObject, ...] | None:
    """Put the objects where they do not touch, or return None where the lots leave no room."""
    placed: list[SceneObject] = []
    for shape, colour in kinds:
        for _ in range(_PLACEMENT_TRIES):
            candidate = _sample_object(rng, shape, colour, OTHER_SIZES if placed else MAIN_SIZES)
            if not any(_touch(candidate, other) for other in placed):
                placed.append(candidate)
                break
        else:
            return None
    return tuple(placed)


def _sample_object(rng: random.Random, shape: str, colour: str, sizes: tuple[float, float]) -> SceneObject:
    size = round(rng.uniform(*sizes), 3)
    reach = size / 2 * REACH
    red, green, blue = (
        min(255, max(0, channel + rng.randint(-MOST_COLOUR_JITTER, MOST_COLOUR_JITTER)))
        for channel in COLOURS[colour]
    )
    return SceneObject(
        shape=shape,
        colour=colour,
        x=round(rng.uniform(reach, 1 - reach), 3),
        y=round(rng.uniform(reach, 1 - reach), 3),
        size=size,
        tilt=rng.randint(-_LARGEST_TILT[shape], _LARGEST_TILT[shape]),
        rgb=(red, green, blue),
    )


def _touch(first: SceneObject, second: SceneObject) -> bool:
    distance_squared = (first.x - second.x) ** 2 + (first.y - second.y) ** 2
    return distance_squared < (first.reach + second.reach + _GAP) ** 2


def place_of(item: SceneObject) -> str | None:
    """Return where in the image an object is ("top", "bottom left", "middle"), None where that is unclear."""
    across = _side_of_centre(item.x, "left", "right")
    upright = _side_of_centre(item.y, "top", "bottom")
    if across is None or upright is None:
        return None
    return f"{upright} {across}".strip() or "middle"


def _side_of_centre(position: float, before: str, after: str) -> str | None:
    """Return on which side of the centre `position` is: "" for near it, None for neither here nor there."""
    offset = position - 0.5
    if abs(offset) <= _CENTRAL:
        return ""
    if abs(offset) < _OFF_CENTRE:
        return None
    return before if offset < 0 else after


def direction_of(item: SceneObject, seen_from: SceneObject) -> str:
    """Return where `item` is: "left", "right", "above", "below", or "near" where none of them is clear."""
    across, down = item.x - seen_from.x, item.y - seen_from.y
    if abs(across) > _CLEAR_SLOPE * abs(down):
        return "left" if across < 0 else "right"
    if abs(down) > _CLEAR_SLOPE * abs(across):
        return "above" if down < 0 else "below"
    return "near"
