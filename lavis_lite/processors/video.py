"""From a video to a tensor of some of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lavis_lite.common.media.video import VideoReader, open_video, random_indices, uniform_indices
from lavis_lite.common.registry import registry
from lavis_lite.processors.base_processor import BaseProcessor
from lavis_lite.processors.image import CLIP_MEAN, CLIP_STD


@dataclass
class _VideoConfig:
    """What both processors of videos share.

    Attributes:
        image_size: side of the square frames in pixels.
        n_frms: how many frames are taken.
        mean, std: of red, green and blue in 0..1; CLIP's unless given.
        reader: "auto", "decord" or "torchcodec".
    """

    image_size: int = 224
    n_frms: int = 8
    mean: list[float] | None = None
    std: list[float] | None = None
    reader: str = "auto"

    def check(self) -> list[tuple[str, str]]:
        """Return what is impossible among the values."""
        return [
            (key, f"must be at least 1, found {getattr(self, key)}.")
            for key in ("image_size", "n_frms")
            if getattr(self, key) < 1
        ]


class _VideoProcessor(BaseProcessor):
    config: _VideoConfig

    def open(self, video: str | Path | VideoReader) -> VideoReader:
        """Return the reader of a path, or the given reader itself."""
        return open_video(video, self.config.reader) if isinstance(video, str | Path) else video

    def normalised(self, frames: Sequence[np.ndarray]) -> torch.Tensor:
        """Return square frames (frames, side, side, 3) as (3, frames, side, side)."""
        pixels = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2).float() / 255
        mean, std = (
            torch.tensor(given or default)[:, None, None, None]
            for given, default in ((self.config.mean, CLIP_MEAN), (self.config.std, CLIP_STD))
        )
        return (pixels - mean) / std


@registry.register_processor("blip_video_eval")
class BlipVideoEvalProcessor(_VideoProcessor):
    """The middle frames of equal spans, resized and normalised: (3, n_frms, image_size, image_size)."""

    @dataclass
    class Config(_VideoConfig):
        """Settings of `BlipVideoEvalProcessor`."""

    config: Config

    def __call__(self, video: str | Path | VideoReader) -> torch.Tensor:
        """Return frames of a path or of an open video.

        Raises:
            VideoError: it cannot be read.
        """
        reader = self.open(video)
        side = (self.config.image_size, self.config.image_size)
        frames = reader.frames(uniform_indices(len(reader), self.config.n_frms))
        resized = [Image.fromarray(frame).resize(side, Image.Resampling.BICUBIC) for frame in frames]
        return self.normalised([np.asarray(frame) for frame in resized])


@registry.register_processor("blip_video_train")
class BlipVideoTrainProcessor(_VideoProcessor):
    """A frame of each of equal spans, all cropped and flipped alike: (3, n_frms, image_size, image_size)."""

    @dataclass
    class Config(_VideoConfig):
        """Settings of `BlipVideoTrainProcessor`.

        Attributes:
            min_scale: smallest part of the frames' area that is kept; `max_scale` the largest.
            horizontal_flip: probability of a mirror image; 0 where texts say left and right.
        """

        min_scale: float = 0.5
        max_scale: float = 1.0
        horizontal_flip: float = 0.5

    config: Config

    def __call__(self, video: str | Path | VideoReader) -> torch.Tensor:
        """Return frames of a path or of an open video.

        Raises:
            VideoError: it cannot be read.
        """
        from torchvision.transforms import RandomResizedCrop

        reader = self.open(video)
        config = self.config
        frames = reader.frames(random_indices(len(reader), config.n_frms))
        first = Image.fromarray(frames[0])
        top, left, height, width = RandomResizedCrop.get_params(
            first, (config.min_scale, config.max_scale), (3 / 4, 4 / 3)
        )
        mirrored = bool(torch.rand(()) < config.horizontal_flip)
        box = (left, top, left + width, top + height)
        side = (config.image_size, config.image_size)
        cropped = [
            np.asarray(Image.fromarray(frame).resize(side, Image.Resampling.BICUBIC, box=box))
            for frame in frames
        ]
        return self.normalised([frame[:, ::-1] if mirrored else frame for frame in cropped])
