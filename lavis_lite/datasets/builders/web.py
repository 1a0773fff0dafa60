"""Pairs in tar shards: the user's own crawl, and LAION."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import registry
from lavis_lite.common.storage.cache import resolve
from lavis_lite.datasets.builders.base_builder import BaseDatasetBuilder, as_list
from lavis_lite.datasets.web.dataset import WebDataset
from lavis_lite.datasets.web.shards import list_shards


@registry.register_builder("webdataset_caption")
class WebCaptionBuilder(BaseDatasetBuilder):
    """Any tar shards of images with texts; only to train on."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "webdataset_caption"}

    @dataclass
    class Config(BaseDatasetBuilder.Config):
        """Settings of a data set in shards.

        Attributes:
            shards: paths with ``*`` and ``{000..127}``, folders, addresses with braces, or ``pipe:``
                commands.
            text_key: "txt" for the member ``.txt``, else a field of the json: a text, or a list from which
                one is drawn.
            shuffle_buffer: number of samples from which the next one is drawn.
            resampled: draw shards with replacement, instead of each once an epoch.
            epoch_size: samples of an epoch; required if `resampled`.
            allow_pipe: whether ``pipe:`` may run commands.
        """

        shards: str | list[str] = field(default_factory=list)
        text_key: str = "txt"
        shuffle_buffer: int = 1000
        resampled: bool = False
        epoch_size: int | None = None
        allow_pipe: bool = False

        def check(self) -> list[tuple[str, str]]:
            """Return the key and the error of each invalid value."""
            if self.shuffle_buffer < 0:
                return [("shuffle_buffer", "must be 0 (no shuffling) or more.")]
            return []

    config: Config

    def splits(self) -> list[str]:
        """Return the only split."""
        return ["train"]

    def shard_patterns(self) -> list[str]:
        """Return the configured patterns of shards.

        Raises:
            ConfigError: there are none.
        """
        patterns = as_list(self.config.shards)
        if not patterns and "train" in self.config.build_info.annotations:
            storage = self.config.build_info.annotations["train"].storage
            patterns = [str(resolve(pattern)) for pattern in as_list(storage)]
        if not patterns:
            raise ConfigError(f"datasets.{self.name}.shards: is missing; name the tar files.")
        return patterns

    def build(self, split: str) -> WebDataset:
        """Return the training split."""
        self.check_split(split)
        config = self.config
        return WebDataset(
            list_shards(self.shard_patterns(), config.allow_pipe),
            *self.processors(is_train=True),
            text_key=config.text_key,
            shuffle_buffer=config.shuffle_buffer,
            resampled=config.resampled,
            epoch_size=config.epoch_size,
        )


@registry.register_builder("laion400M")
class Laion400MBuilder(WebCaptionBuilder):
    """LAION-400M as img2dataset writes it."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "laion400M"}


@registry.register_builder("laion2B_multi")
class Laion2BMultiBuilder(WebCaptionBuilder):
    """LAION-2B-multi as img2dataset writes it."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "laion2B_multi"}
