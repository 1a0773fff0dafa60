"""BLIP's RandomAugment, on Pillow images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image, ImageEnhance, ImageOps

from lavis_lite.common.registry import suggest

FILL = (128, 128, 128)
MAXIMUM_MAGNITUDE = 10


class RandomAugment:
    """Changes an RGB image by a few random operations, as BLIP did in training.

    Operations are drawn with replacement, and each is applied with `probability`; geometric ones go in
    either direction and fill with gray 128. At the magnitude 5 of all BLIP recipes, a shear is 0.15, a
    translation 5 pixels, a rotation 15 degrees, and brightness and sharpness do not change.

    BLIP used OpenCV, which rounds positions to 1/32 pixel and mixes gray into the outermost pixels; this
    uses Pillow. Random numbers come from torch's global generator.

    Args:
        number_of_operations: drawn for each image.
        magnitude: from 0 to 10.
        probability: that a drawn operation is applied.
        operations: names from `OPERATIONS`; None for all.

    Raises:
        ValueError: an operation that does not exist, or a number out of its range.
    """

    def __init__(
        self,
        number_of_operations: int = 2,
        magnitude: float = 5,
        probability: float = 0.5,
        operations: Sequence[str] | None = None,
    ) -> None:
        self.operations = list(OPERATIONS if operations is None else operations)
        for name in self.operations:
            if name not in OPERATIONS:
                raise ValueError(f"No augmentation is called {name!r}.{suggest(name, OPERATIONS)}")
        if not self.operations or number_of_operations < 0:
            raise ValueError("give at least one operation to draw from, and draw 0 or more of them")
        if not 0 <= magnitude <= MAXIMUM_MAGNITUDE:
            raise ValueError(f"magnitude must lie in 0..{MAXIMUM_MAGNITUDE}, found {magnitude}")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must lie in 0..1, found {probability}")
        self.number_of_operations = number_of_operations
        self.strength = magnitude / MAXIMUM_MAGNITUDE
        self.probability = probability

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return `image` (RGB) augmented; its size stays."""
        # The number of random numbers does not depend on their values.
        indices = torch.randint(len(self.operations), (self.number_of_operations,)).tolist()
        for index, chance, side in zip(indices, *self._chances(), strict=True):
            if chance < self.probability:
                strength = self.strength if side < 0.5 else -self.strength
                image = OPERATIONS[self.operations[index]](image, strength)
        return image

    def _chances(self) -> list[list[float]]:
        return torch.rand(2, self.number_of_operations).tolist()


def _identity(image: Image.Image, strength: float) -> Image.Image:
    return image


def _autocontrast(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.equalize(image)


def _brightness(image: Image.Image, strength: float) -> Image.Image:
    return _enhanced(image, ImageEnhance.Brightness, strength)


def _sharpness(image: Image.Image, strength: float) -> Image.Image:
    return _enhanced(image, ImageEnhance.Sharpness, strength)


def _enhanced(image: Image.Image, enhancer: Callable[..., Any], strength: float) -> Image.Image:
    factor = abs(strength) * 1.8 + 0.1
    return image if factor == 1.0 else enhancer(image).enhance(factor)


def _shear_x(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, -0.3 * strength, 0, 0, 1, 0))


def _shear_y(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0, 0, -0.3 * strength, 1, 0))


def _translate_x(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0, 10 * strength, 0, 1, 0))


def _translate_y(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, 10 * strength))


def _rotate(image: Image.Image, strength: float) -> Image.Image:
    """Turn counter-clockwise about the pixel (width / 2, height / 2)."""
    angle = math.radians(30 * strength)
    cosine, sine = math.cos(angle), math.sin(angle)
    x, y = image.width / 2, image.height / 2
    return _affine(image, (cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y))


def _affine(image: Image.Image, source: Sequence[float]) -> Image.Image:
    """Fetch pixel (x, y) from (a x + b y + c, d x + e y + f) for `source` (a, b, c, d, e, f)."""
    a, b, c, d, e, f = source
    # Pillow counts from the corner of a pixel; OpenCV, and the formulas here, from its center.
    corner = (a, b, c + (1 - a - b) / 2, d, e, f + (1 - d - e) / 2)
    return image.transform(
        image.size, Image.Transform.AFFINE, corner, resample=Image.Resampling.BILINEAR, fillcolor=FILL
    )


# name -> function of an RGB image and a signed strength in -1..1
OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "Identity": _identity,
    "AutoContrast": _autocontrast,
    "Brightness": _brightness,
    "Sharpness": _sharpness,
    "Equalize": _equalize,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
}
