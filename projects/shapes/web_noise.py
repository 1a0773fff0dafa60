"""Caption a scene as badly as a crawl of the web would."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass

from .classes import kinds_almost
from .grammar import captions
from .scene import Scene, numbered_rng, numbered_scene
from .truth import Mention, mentions

CLEAN = "clean"
NOISES: tuple[str, ...] = ("mismatched", "boilerplate", "half_right")

# {n}: a number of up to four digits; {m}: a small one.
BOILERPLATE: tuple[str, ...] = (
    "IMG_{n:04d}.jpg",
    "DSC{n:05d}.JPG",
    "image{n}",
    "untitled-{m}",
    "photo {m} of {n}",
    "picture {m}",
    "click to enlarge",
    "click here for the full size image",
    "buy now , free shipping",
    "buy now and save {m}%",
    "free download",
    "stock photo {n}",
    "royalty free image {n}",
    "home | about us | contact",
    "all rights reserved {n}",
    "share this page",
    "thumbnail",
    "no description available",
    "advertisement",
    "page {m}",
)
_TRIES = 200


@dataclass(frozen=True)
class WebCaption:
    """What stands under an image, and what is wrong with it.

    Args:
        noise: `CLEAN`, or one of `NOISES`.
        wrong: what is not so: for a mismatched caption the number of the image that it is of; for a
            half right one the altered thing ("blue star for blue circle"); else empty.
    """

    text: str
    noise: str
    wrong: str = ""


def web_caption(seed: int, number: int, noise: str) -> WebCaption:
    """Return a caption of scene `number`, with a noise of the given kind; it depends on nothing else."""
    rng = numbered_rng(seed, number, f"web {noise}")
    return _MAKERS[noise](seed, number, rng)


def is_wholly_wrong(caption: str, scene: Scene) -> bool:
    """Return whether nothing that `caption` speaks of is there, nor its first thing's colour or shape.

    That is so of a caption that speaks of nothing, too.
    """
    there = {Mention(item.colour, item.shape) for item in scene.objects}
    claimed = mentions(caption)
    if there & set(claimed):
        return False
    return not claimed or (claimed[0].colour != scene.main.colour and claimed[0].shape != scene.main.shape)


def _clean(seed: int, number: int, rng: random.Random) -> WebCaption:
    return WebCaption(captions(numbered_scene(seed, number), rng, 1)[0], CLEAN)


def _mismatched(seed: int, number: int, rng: random.Random) -> WebCaption:
    """Take the caption of another image, of which nothing is true here."""
    scene = numbered_scene(seed, number)
    for _ in range(_TRIES):
        other = number + rng.choice((-1, 1)) * rng.randint(1, 1000)
        text = captions(numbered_scene(seed, other), rng, 1)[0]
        if is_wholly_wrong(text, scene):
            return WebCaption(text, "mismatched", str(other))
    raise AssertionError(f"no scene near {number} differs from it")


def _boilerplate(seed: int, number: int, rng: random.Random) -> WebCaption:
    text = rng.choice(BOILERPLATE).format(n=rng.randint(1, 9999), m=rng.randint(1, 50))
    return WebCaption(text, "boilerplate")


def _half_right(seed: int, number: int, rng: random.Random) -> WebCaption:
    """Tell of the scene truly, but for the colour or the shape of one object."""
    scene = numbered_scene(seed, number)
    there = {Mention(item.colour, item.shape) for item in scene.objects}
    for _ in range(_TRIES):
        index = rng.randrange(len(scene.objects))
        item = scene.objects[index]
        colour, shape = rng.choice(kinds_almost(item.colour, item.shape))
        altered = dataclasses.replace(item, colour=colour, shape=shape)
        objects = (*scene.objects[:index], altered, *scene.objects[index + 1 :])
        text = captions(dataclasses.replace(scene, objects=objects), rng, 1)[0]
        if Mention(colour, shape) not in there and Mention(colour, shape) in mentions(text):
            return WebCaption(text, "half_right", f"{colour} {shape} for {item.colour} {item.shape}")
    raise AssertionError(f"scene {number} cannot be told half right")


_MAKERS: dict[str, Callable[[int, int, random.Random], WebCaption]] = {
    CLEAN: _clean,
    "mismatched": _mismatched,
    "boilerplate": _boilerplate,
    "half_right": _half_right,
}
