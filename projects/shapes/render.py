"""Draw a scene."""

from __future__ import annotations

import math
import random

from PIL import Image, ImageDraw

from .scene import TINTS, Background, Scene, SceneObject

# Edges are drawn on a canvas this many times larger and averaged down.
_OVERSAMPLING = 4

Point = tuple[float, float]


def render(scene: Scene, image_size: int) -> Image.Image:
    """Return the scene as an RGB image of `image_size` pixels a side.

    Raises:
        ValueError: fewer than 16 pixels a side, in which no shape can be told.
    """
    if image_size < 16:
        raise ValueError(f"image_size is {image_size}; shapes need at least 16 pixels a side.")
    canvas = _draw_background(scene.background, image_size * _OVERSAMPLING)
    draw = ImageDraw.Draw(canvas)
    for item in scene.objects:
        _draw_object(draw, item, canvas.width)
    return canvas.reduce(_OVERSAMPLING)


def _draw_background(background: Background, side: int) -> Image.Image:
    dark, light = TINTS[background.tint]
    if background.pattern == "plain":
        return Image.new("RGB", (side, side), light)
    mix = _MIXES[background.pattern](background, side)
    return Image.composite(Image.new("RGB", mix.size, light), Image.new("RGB", mix.size, dark), mix)


def _gradient(background: Background, side: int) -> Image.Image:
    turned = Image.linear_gradient("L").rotate(background.angle, Image.Resampling.BILINEAR)
    inset = math.ceil(turned.width * (1 - math.sqrt(0.5)) / 2)  # what has no corner that came from outside
    inner = turned.crop((inset, inset, turned.width - inset, turned.width - inset))
    return inner.resize((side, side), Image.Resampling.BILINEAR)


def _stripes(background: Background, side: int) -> Image.Image:
    wide = 2 * side  # so that turning leaves no empty corner
    mix = Image.new("L", (wide, wide))
    draw = ImageDraw.Draw(mix)
    step = side / background.cells
    for i in range(0, 2 * background.cells + 1, 2):
        draw.rectangle((0, round(i * step), wide, round((i + 1) * step) - 1), fill=255)
    turned = mix.rotate(background.angle)
    return turned.crop((side // 2, side // 2, side // 2 + side, side // 2 + side))


def _checks(background: Background, side: int) -> Image.Image:
    cells = background.cells
    board = Image.new("L", (cells, cells))
    board.putdata([255 * ((x + y) % 2) for y in range(cells) for x in range(cells)])
    return board.resize((side, side), Image.Resampling.NEAREST)


def _noise(background: Background, side: int) -> Image.Image:
    specks = 2 * background.cells
    rng = random.Random(background.noise_seed)
    values = bytes(rng.randrange(256) for _ in range(specks * specks))
    return Image.frombytes("L", (specks, specks), values).resize((side, side), Image.Resampling.BICUBIC)


_MIXES = {"gradient": _gradient, "stripes": _stripes, "checks": _checks, "noise": _noise}


def _draw_object(draw: ImageDraw.ImageDraw, item: SceneObject, side: int) -> None:
    cosine, sine = math.cos(math.radians(item.tilt)), math.sin(math.radians(item.tilt))
    scale = item.size / 2 * side
    corners = [
        (
            item.x * side + scale * (x * cosine - y * sine),
            item.y * side + scale * (x * sine + y * cosine),
        )
        for x, y in OUTLINES[item.shape]
    ]
    draw.polygon(corners, fill=item.rgb)


def _ring(count: int, radius: float, start: float = -90.0) -> list[Point]:
    """Return `count` points around the centre, the first at the top."""
    angles = [math.radians(start + 360 * i / count) for i in range(count)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _star(outer: float, inner: float) -> list[Point]:
    tips, notches = _ring(5, outer), _ring(5, inner, start=-54.0)
    return [point for pair in zip(tips, notches, strict=True) for point in pair]


def _cross(reach: float, half_width: float) -> list[Point]:
    a, b = reach, half_width
    return [
        (-b, -a),
        (b, -a),
        (b, -b),
        (a, -b),
        (a, b),
        (b, b),
        (b, a),
        (-b, a),
        (-b, b),
        (-a, b),
        (-a, -b),
        (-b, -b),
    ]


def _heart(scale: float) -> list[Point]:
    angles = [2 * math.pi * i / 60 for i in range(60)]
    return [
        (
            scale * 16 * math.sin(t) ** 3 / 16,
            -scale
            * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) + 2.5)
            / 16,
        )
        for t in angles
    ]


# Corners around (0, 0), where 1 is half the object's size. The areas are close to one another, so that
# the largest object by size is the largest to the eye.
OUTLINES: dict[str, list[Point]] = {
    "circle": _ring(72, 1.0),
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(x, y + 0.08) for x, y in _ring(3, 1.26)],
    "star": _star(1.3, 0.62),
    "cross": _cross(1.12, 0.40),
    "heart": _heart(1.1),
}
