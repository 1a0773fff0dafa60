"""BLIP's RandomAugment, on Pillow images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from PIL import Image, ImageEnhance, ImageOps

from lavis_lite.common.registry import suggest

FILL = (128, 128, 128)
MAXIMUM_MAGNITUDE = 10


class RandomAugment:
    """Change an RGB image by a few operations drawn at random, as BLIP did in training.

    The same as BLIP's: the ten operations and what a magnitude means for each; operations are
    drawn with replacement and each is then applied with `probability`; geometric operations go
    either way with probability 1/2, about the same fixed points, and leave grey 128 behind.
    At the magnitude 5 of all BLIP recipes a shear is 0.15, a translation 5 pixels, a rotation
    15 degrees, and Brightness and Sharpness have the factor 1: they change nothing.

    What differs: BLIP computed with OpenCV, this with Pillow. Both interpolate linearly, but
    OpenCV rounds positions to 1/32 pixel and mixes the grey into the outermost pixels. And draws
    come from torch's global generator, not from NumPy's and Python's.

    Args:
        number_of_operations: how many are drawn for an image.
        magnitude: 0 (least) to 10.
        probability: with which a drawn operation is applied.
        operations: names from `OPERATIONS` to draw from; all of them unless given.

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
        # Always the same number of draws, whatever is drawn.
        chosen = torch.randint(len(self.operations), (self.number_of_operations,)).tolist()
        for index, chance, side in zip(chosen, *self._chances(), strict=True):
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


def _enhancement_factor(strength: float) -> float:
    return abs(strength) * 1.8 + 0.1


def _brightness(image: Image.Image, strength: float) -> Image.Image:
    factor = _enhancement_factor(strength)
    return image if factor == 1.0 else ImageEnhance.Brightness(image).enhance(factor)


def _sharpness(image: Image.Image, strength: float) -> Image.Image:
    factor = _enhancement_factor(strength)
    return image if factor == 1.0 else ImageEnhance.Sharpness(image).enhance(factor)


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
    # Pillow counts from a pixel's corner, OpenCV and the formulas here from its centre.
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
