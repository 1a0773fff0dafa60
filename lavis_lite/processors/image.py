"""From a Pillow image to the normalised tensor that BLIP's vision transformer takes."""

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

# Of CLIP's training images, red, green, blue, in 0..1; BLIP kept them.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass
class _NormalizedConfig:
    image_size: int = 384
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def check(self) -> list[tuple[str, str]]:
        """Return what is impossible among the values."""
        faults = []
        if self.image_size < 1:
            faults.append(("image_size", f"must be at least 1 pixel, found {self.image_size}."))
        if self.std is not None and min(self.std) <= 0:
            faults.append(("std", f"must be positive, found {self.std}."))
        return faults


class _NormalizingProcessor(BaseProcessor):
    """The tensor end of both image processors."""

    config: _NormalizedConfig

    def __init__(self, config: _NormalizedConfig | None = None) -> None:
        super().__init__(config)
        self._mean = torch.tensor(self.config.mean or CLIP_MEAN).view(3, 1, 1)
        self._std = torch.tensor(self.config.std or CLIP_STD).view(3, 1, 1)

    def _normalized(self, image: Image.Image) -> torch.Tensor:
        # The operations and their order are torchvision's (ToTensor, Normalize), so equal to the last bit.
        pixels = torch.from_numpy(numpy.array(image)).permute(2, 0, 1)  # (3, height, width) uint8
        result = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return result.div_(255).sub_(self._mean).div_(self._std)


@registry.register_processor("blip_image_eval")
class BlipImageEvalProcessor(_NormalizingProcessor):
    """Resize to a square without cropping, and normalise: `(3, image_size, image_size)` float32.

    Any Pillow image is taken; it is brought to upright RGB first.
    """

    @dataclass
    class Config(_NormalizedConfig):
        """Settings of `BlipImageEvalProcessor`.

        Args:
            image_size: side of the square in pixels.
            mean: of red, green and blue in 0..1; CLIP's unless given.
            std: likewise.
        """

    config: Config

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Return `image` as a tensor."""
        side = self.config.image_size
        return self._normalized(to_upright_rgb(image).resize((side, side), Image.Resampling.BICUBIC))


@dataclass
class ColorJitter:
    """How much colours may change: factors are drawn from 1 - value to 1 + value, hue from -hue to hue."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def faults(self) -> list[str]:
        """Return what is impossible among the values."""
        if min(self.brightness, self.contrast, self.saturation, self.hue) < 0 or self.hue > 0.5:
            return [f"must not be negative, and hue not above 0.5, found {self}."]
        return []


@registry.register_processor("blip_image_train")
class BlipImageTrainProcessor(_NormalizingProcessor):
    """Crop, flip and change an image at random, and normalise: `(3, image_size, image_size)` float32.

    Every draw comes from torch's global generator, so a seed fixes the result.
    """

    @dataclass
    class Config(_NormalizedConfig):
        """Settings of `BlipImageTrainProcessor`; the defaults are BLIP's recipe.

        Args:
            image_size: side of the square in pixels.
            mean: of red, green and blue in 0..1; CLIP's unless given.
            std: likewise.
            min_scale: smallest part of the image's area that is kept.
            max_scale: largest part.
            horizontal_flip: probability of a mirror image; 0 where captions say left and right.
            random_augment: BLIP's `RandomAugment` of two operations at magnitude 5.
            color_jitter: 0 is off; a number stands for brightness, contrast and saturation.
            rotation_degrees: largest angle of an extra rotation, either way; 0 is off.
        """

        min_scale: float = 0.5
        max_scale: float = 1.0
        horizontal_flip: float = 0.5
        random_augment: bool = True
        color_jitter: float | ColorJitter = 0.0
        rotation_degrees: float = 0.0

        def check(self) -> list[tuple[str, str]]:
            """Return what is impossible among the values."""
            faults = super().check()
            if not 0 < self.min_scale <= self.max_scale <= 1:
                found = f"{self.min_scale} and {self.max_scale}"
                faults.append(("min_scale", f"0 < min_scale <= max_scale <= 1 must hold, found {found}."))
            if not 0 <= self.horizontal_flip <= 1:
                faults.append(
                    ("horizontal_flip", f"is a probability, from 0 to 1, found {self.horizontal_flip}.")
                )
            if not 0 <= self.rotation_degrees <= 180:
                faults.append(("rotation_degrees", f"must lie in 0..180, found {self.rotation_degrees}."))
            return faults + [("color_jitter", fault) for fault in self.jitter().faults()]

        def jitter(self) -> ColorJitter:
            """Return `color_jitter` written out."""
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
    # Imported here: evaluation does without torchvision, whose import takes half a second.
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
