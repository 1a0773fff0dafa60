"""Processors from a Pillow image to the normalized tensor that BLIP's vision transformer reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy
import torch
from PIL import Image

from lavis_lite.common.media.images import to_upright_rgb
from lavis_lite.common.registry import registry
from lavis_lite.processors.augment import FILL, RandomAugment
from lavis_lite.processors.base_processor import BaseProcessor

# Red, green and blue of CLIP's training images, from 0 to 1; BLIP uses them, too.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class _ImageProcessor(BaseProcessor):
    """Base of the image processors: size and normalization."""

    @dataclass
    class Config(BaseProcessor.Config):
        """Settings of an image processor.

        Attributes:
            image_size: side of the square in pixels.
            mean: of red, green and blue, from 0 to 1; None for CLIP's.
            std: of red, green and blue, from 0 to 1; None for CLIP's.
        """

        image_size: int = 384
        mean: tuple[float, float, float] | None = None
        std: tuple[float, float, float] | None = None

        def check(self) -> list[tuple[str, str]]:
            """Return an error for each impossible value."""
            errors = []
            if self.image_size < 1:
                errors.append(("image_size", f"must be at least 1 pixel, found {self.image_size}."))
            if self.std is not None and min(self.std) <= 0:
                errors.append(("std", f"must be positive, found {self.std}."))
            return errors

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self._mean = torch.tensor(self.config.mean or CLIP_MEAN).view(3, 1, 1)
        self._std = torch.tensor(self.config.std or CLIP_STD).view(3, 1, 1)

    def _normalized(self, image: Image.Image) -> torch.Tensor:
        # The same operations in the same order as torchvision's ToTensor and Normalize: bit-equal.
        pixels = torch.from_numpy(numpy.array(image)).permute(2, 0, 1)  # (3, height, width) uint8
        result = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return result.div_(255).sub_(self._mean).div_(self._std)


@registry.register_processor("blip_image_eval")
class BlipImageEvalProcessor(_ImageProcessor):
    """Resizes any Pillow image to a square without cropping: (3, image_size, image_size) float32."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return `image` as a tensor."""
        side = self.config.image_size
        return self._normalized(to_upright_rgb(image).resize((side, side), Image.Resampling.BICUBIC))


@dataclass
class ColorJitter:
    """Ranges of random color changes: factors from 1 - value to 1 + value; the hue from -hue to hue."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    @property
    def is_possible(self) -> bool:
        """True if nothing is negative, and hue at most 0.5."""
        return min(self.brightness, self.contrast, self.saturation, self.hue) >= 0 and self.hue <= 0.5


@registry.register_processor("blip_image_train")
class BlipImageTrainProcessor(_ImageProcessor):
    """Crops, flips and augments any Pillow image at random: (3, image_size, image_size) float32.

    All random numbers come from torch's global generator.
    """

    @dataclass
    class Config(_ImageProcessor.Config):
        """Settings of `BlipImageTrainProcessor`; the defaults are BLIP's recipe.

        Attributes:
            min_scale: smallest share of the image's area in the crop.
            max_scale: largest share of the image's area in the crop.
            horizontal_flip: probability of a mirror image; set 0 if captions say left and right.
            random_augment: BLIP's `RandomAugment` of two operations at magnitude 5.
            color_jitter: 0 is off; a number stands for brightness, contrast and saturation.
            rotation_degrees: largest angle of an additional rotation in either direction; 0 is off.
        """

        min_scale: float = 0.5
        max_scale: float = 1.0
        horizontal_flip: float = 0.5
        random_augment: bool = True
        color_jitter: float | ColorJitter = 0.0
        rotation_degrees: float = 0.0

        def check(self) -> list[tuple[str, str]]:
            """Return an error for each impossible value."""
            errors = super().check()
            if not 0 < self.min_scale <= self.max_scale <= 1:
                values = f"{self.min_scale} and {self.max_scale}"
                errors.append(("min_scale", f"0 < min_scale <= max_scale <= 1 must hold, found {values}."))
            if not 0 <= self.horizontal_flip <= 1:
                text = f"is a probability, from 0 to 1, found {self.horizontal_flip}."
                errors.append(("horizontal_flip", text))
            if not 0 <= self.rotation_degrees <= 180:
                errors.append(("rotation_degrees", f"must lie in 0..180, found {self.rotation_degrees}."))
            if not self.jitter().is_possible:
                text = f"must not be negative, and hue not above 0.5, found {self.jitter()}."
                errors.append(("color_jitter", text))
            return errors

        def jitter(self) -> ColorJitter:
            """Return `color_jitter` as ranges of each change."""
            if isinstance(self.color_jitter, ColorJitter):
                return self.color_jitter
            return ColorJitter(self.color_jitter, self.color_jitter, self.color_jitter)

    config: Config

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self._augmentations = _augmentations(self.config)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return `image`, augmented, as a tensor."""
        image = to_upright_rgb(image)
        for augment in self._augmentations:
            image = augment(image)
        return self._normalized(image)


def _augmentations(
    config: BlipImageTrainProcessor.Config,
) -> list[Callable[[Image.Image], Image.Image]]:
    # Imported here because evaluation does not need it and the import takes half a second.
    from torchvision import transforms

    steps: list[Callable[[Image.Image], Image.Image]] = [
        transforms.RandomResizedCrop(
            config.image_size,
            scale=(config.min_scale, config.max_scale),
            interpolation=transforms.InterpolationMode.BICUBIC,
        ),
        transforms.RandomHorizontalFlip(config.horizontal_flip),
    ]
    if config.rotation_degrees:
        bilinear = transforms.InterpolationMode.BILINEAR
        steps.append(transforms.RandomRotation(config.rotation_degrees, interpolation=bilinear, fill=FILL))
    jitter = config.jitter()
    if jitter != ColorJitter():
        steps.append(
            transforms.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        )
    if config.random_augment:
        steps.append(RandomAugment())
    return steps
