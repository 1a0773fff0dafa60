"""Processors from a video to a tensor of some of its frames."""

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


class _VideoProcessor(BaseProcessor):
    """Base of the video processors: number and size of the frames, and normalization."""

    @dataclass
    class Config(BaseProcessor.Config):
        """Settings of a video processor.

        Attributes:
            image_size: side of the square frames in pixels.
            n_frms: number of frames.
            mean: of red, green and blue, from 0 to 1; None for CLIP's.
            std: of red, green and blue, from 0 to 1; None for CLIP's.
            reader: "auto", "decord" or "torchcodec".
        """

        image_size: int = 224
        n_frms: int = 8
        mean: list[float] | None = None
        std: list[float] | None = None
        reader: str = "auto"

        def check(self) -> list[tuple[str, str]]:
            """Return an error for each impossible value."""
            return [
                (key, f"must be at least 1, found {getattr(self, key)}.")
                for key in ("image_size", "n_frms")
                if getattr(self, key) < 1
            ]

    config: Config

    def open(self, video: str | Path | VideoReader) -> VideoReader:
        """Return a reader of the video; a reader is returned as it is."""
        return open_video(video, self.config.reader) if isinstance(video, str | Path) else video

    def normalized(self, frames: Sequence[np.ndarray]) -> torch.Tensor:
        """Return square frames (frames, side, side, 3) as (3, frames, side, side)."""
        pixels = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2).float() / 255
        mean, std = (
            torch.tensor(value or default)[:, None, None, None]
            for value, default in ((self.config.mean, CLIP_MEAN), (self.config.std, CLIP_STD))
        )
        return (pixels - mean) / std


@registry.register_processor("blip_video_eval")
class BlipVideoEvalProcessor(_VideoProcessor):
    """Resizes the middle frames of equal spans: (3, n_frms, image_size, image_size) float32."""

    def __call__(self, video: str | Path | VideoReader) -> torch.Tensor:
        """Return the tensor of a path or of an open video.

        Raises:
            VideoError: it cannot be read.
        """
        reader = self.open(video)
        side = (self.config.image_size, self.config.image_size)
        frames = reader.frames(uniform_indices(len(reader), self.config.n_frms))
        resized = [Image.fromarray(frame).resize(side, Image.Resampling.BICUBIC) for frame in frames]
        return self.normalized([np.asarray(frame) for frame in resized])


@registry.register_processor("blip_video_train")
class BlipVideoTrainProcessor(_VideoProcessor):
    """Crops and flips random frames of equal spans, all alike: (3, n_frms, image_size, image_size)."""

    @dataclass
    class Config(_VideoProcessor.Config):
        """Settings of `BlipVideoTrainProcessor`.

        Attributes:
            min_scale: smallest share of the frames' area in the crop.
            max_scale: largest share of the frames' area in the crop.
            horizontal_flip: probability of a mirror image; set 0 if texts say left and right.
        """

        min_scale: float = 0.5
        max_scale: float = 1.0
        horizontal_flip: float = 0.5

    config: Config

    def __call__(self, video: str | Path | VideoReader) -> torch.Tensor:
        """Return the tensor of a path or of an open video.

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
        return self.normalized([frame[:, ::-1] if mirrored else frame for frame in cropped])
