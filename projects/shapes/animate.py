"""Let the largest object of a scene move or appear, and tell and ask about that."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from lavis_lite.common.config.schema import parse

from . import lexicon
from .classes import kind_of, with_article
from .questions import Question
from .render import render
from .scene import COLOURS, SHAPES, Scene, SceneObject, sample_scene

# Which way a shape goes, as (right, down), and how a sentence has it.
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_DIRECTION_WORDS = {"left": "to the left", "right": "to the right", "up": "up", "down": "down"}
APPEARS = "appears"
MOTIONS: tuple[str, ...] = (*DIRECTIONS, APPEARS)
CLIP_QUESTION_TYPES: tuple[str, ...] = ("color", "shape", "direction")
FEWEST_FRAMES, MOST_FRAMES = 8, 24
# Of the way that the image leaves, how much is gone at least.
_LEAST_SHARE_OF_WAY = 0.8
_GAP = 0.02
_PATH_TRIES = 40


@dataclass(frozen=True)
class Clip:
    """A short video of one thing that happens.

    Args:
        scene: the first frame; where the largest object appears, the last one.
        motion: one of `MOTIONS`.
        way: how far the largest object goes, as a fraction of the image's side.
        frames: how many there are.
        start: the frame at which the largest object is there first.
    """

    scene: Scene
    motion: str
    way: float
    frames: int
    start: int = 0

    def scene_at(self, frame: int) -> Scene:
        """Return what is to be seen at a frame, counted from 0."""
        if self.motion == APPEARS:
            objects = self.scene.objects if frame >= self.start else self.scene.others
            return dataclasses.replace(self.scene, objects=objects)
        right, down = DIRECTIONS[self.motion]
        gone = self.way * frame / (self.frames - 1)
        main = self.scene.main
        moved = dataclasses.replace(main, x=main.x + right * gone, y=main.y + down * gone)
        return dataclasses.replace(self.scene, objects=(moved, *self.scene.others))

    def images(self, image_size: int) -> Iterator[Image.Image]:
        """Draw frame after frame."""
        for frame in range(self.frames):
            yield render(self.scene_at(frame), image_size)

    def to_json(self) -> dict[str, Any]:
        """Return the clip as what `json.dumps` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Clip:
        """Return the clip that `to_json` wrote.

        Raises:
            ConfigError: a key or a value that no clip has.
        """
        return parse(cls, values, where="clip")


def sample_clip(rng: random.Random) -> Clip:
    """Draw a clip by lot: one shape moves or appears, and mostly another one stands by."""
    scene = sample_scene(rng)
    scene = dataclasses.replace(scene, objects=scene.objects[:2])
    motion = rng.choice(MOTIONS)
    frames = rng.randint(FEWEST_FRAMES, MOST_FRAMES)
    if motion == APPEARS:
        return Clip(scene, motion, 0.0, frames, rng.randint(frames // 4, frames // 2))
    for _ in range(_PATH_TRIES):
        main, way = _on_its_way(scene.main, motion, rng)
        clip = Clip(dataclasses.replace(scene, objects=(main, *scene.others)), motion, way, frames)
        if not _collides(clip):
            return clip
    return dataclasses.replace(clip, scene=dataclasses.replace(scene, objects=(main,)))


def _on_its_way(item: SceneObject, motion: str, rng: random.Random) -> tuple[SceneObject, float]:
    """Return the object where it starts, and how far it can go."""
    room = 1 - 2 * item.reach
    way = round(rng.uniform(_LEAST_SHARE_OF_WAY, 1) * room, 3)
    near, across = item.reach + rng.random() * (room - way), item.reach + rng.random() * room
    right, down = DIRECTIONS[motion]
    along = near if right + down > 0 else 1 - near
    x, y = (along, across) if right else (across, along)
    return dataclasses.replace(item, x=round(x, 3), y=round(y, 3)), way


def _collides(clip: Clip) -> bool:
    for frame in range(clip.frames):
        scene = clip.scene_at(frame)
        for other in scene.others:
            distance_squared = (scene.main.x - other.x) ** 2 + (scene.main.y - other.y) ** 2
            if distance_squared < (scene.main.reach + other.reach + _GAP) ** 2:
                return True
    return False


def clip_captions(clip: Clip, rng: random.Random, number: int) -> list[str]:
    """Return up to `number` different captions of `clip`, each a true sentence.

    All name the shape that moves or appears, by its shape and its colour.
    """
    main = with_article(kind_of(clip.scene.main))
    does = "appears" if clip.motion == APPEARS else f"moves {_DIRECTION_WORDS[clip.motion]}"
    background = clip.scene.background
    pattern = lexicon.PATTERNS[background.pattern][0]
    texts = [
        f"{main} {does}",
        f"{main} {does} on a {background.tint} background",
        f"{main} {does} on a {pattern} {background.tint} background",
        f"on a {pattern} background {main} {does}",
    ]
    for other in clip.scene.others:
        name = with_article(kind_of(other))
        stays = f"{main} {does} and {name} stays"
        texts += [stays, f"{stays} on a {background.tint} background"]
    return rng.sample(texts, min(number, len(texts)))


def clip_questions(clip: Clip) -> list[Question]:
    """Return what can be asked about the shape that moves or appears, one question a type."""
    main, others = clip.scene.main, clip.scene.others
    verb = "appears" if clip.motion == APPEARS else "moves"
    shape_is_unique = all(other.shape != main.shape for other in others)
    colour_is_unique = all(other.colour != main.colour for other in others)
    by_shape = main.shape if shape_is_unique else f"{main.shape} that {verb}"
    by_colour = f"{main.colour} object" if colour_is_unique else f"{main.colour} object that {verb}"
    asked = [
        Question(f"what color is the {by_shape}?", main.colour, "color"),
        Question(f"what shape is the {by_colour}?", main.shape, "shape"),
    ]
    if clip.motion != APPEARS:
        mover = main.shape if shape_is_unique else kind_of(main)
        asked += [Question(f"which direction does the {mover} move?", clip.motion, "direction")]
    return asked


def all_clip_answers() -> list[str]:
    """Return every answer to `clip_questions`."""
    return [*COLOURS, *SHAPES, *DIRECTIONS]
