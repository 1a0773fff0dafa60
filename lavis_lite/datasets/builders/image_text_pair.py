"""Pairs of the web and of the labs, to pretrain on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lavis_lite.common.registry import registry
from lavis_lite.datasets.builders.caption import CaptionBuilder


@registry.register_builder("vg_caption")
class VGCaptionBuilder(CaptionBuilder):
    """Visual Genome's region descriptions, as captions."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "vg_caption"}


@registry.register_builder("sbu_caption")
class SBUCaptionBuilder(CaptionBuilder):
    """SBU captions: a million photographs and what their owners wrote."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "sbu_caption"}


@registry.register_builder("conceptual_caption_3m")
class ConceptualCaption3MBuilder(CaptionBuilder):
    """Conceptual Captions, three million."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "conceptual_caption_3m"}


@registry.register_builder("conceptual_caption_12m")
class ConceptualCaption12MBuilder(CaptionBuilder):
    """Conceptual 12M."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "conceptual_caption_12m"}


@registry.register_builder("capfilt14m")
class CapFilt14MBuilder(CaptionBuilder):
    """What BLIP's authors released of CapFilt: a list of {url, caption}, once its images are fetched."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "capfilt14m"}
