"""Processors by name: ``load_processor("blip_image_eval")``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis_lite.common.registry import registry
from lavis_lite.processors import image, text, video
from lavis_lite.processors.augment import RandomAugment
from lavis_lite.processors.base_processor import BaseProcessor
from lavis_lite.processors.image import BlipImageEvalProcessor, BlipImageTrainProcessor
from lavis_lite.processors.text import BlipCaptionProcessor, BlipQuestionProcessor
from lavis_lite.processors.video import BlipVideoEvalProcessor, BlipVideoTrainProcessor

__all__ = [
    "BaseProcessor",
    "BlipCaptionProcessor",
    "BlipImageEvalProcessor",
    "BlipImageTrainProcessor",
    "BlipQuestionProcessor",
    "BlipVideoEvalProcessor",
    "BlipVideoTrainProcessor",
    "RandomAugment",
    "image",
    "load_processor",
    "text",
    "video",
]


def load_processor(name: str, cfg: Mapping[str, Any] | None = None) -> BaseProcessor:
    """Build the processor registered as `name`.

    Raises:
        UnknownNameError: no processor is called `name`.
        ConfigError: `cfg` does not fit the processor's `Config`.
    """
    return registry.get_processor_class(name).from_config(cfg)
