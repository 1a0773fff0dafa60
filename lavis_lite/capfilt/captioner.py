"""The captioner of a CapFilt job: any model with `generate`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lavis_lite.capfilt.scorers import autocast
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import suggest
from lavis_lite.common.settings import GenerationSettings
from lavis_lite.models.weights.digest import weights_digest


class Captioner:
    """Captions images with a model, as the settings say.

    Args:
        model: has ``generate(samples, num_captions=, seed=, ...)``, where `samples` holds "image" and `seed`
            is a number for each image; None for no captions.
        image_processor: makes an image tensor of an upright RGB image.

    Raises:
        ConfigError: the model cannot caption, or not with these settings.
    """

    def __init__(
        self,
        model: Any | None,
        image_processor: Callable[[Image.Image], Tensor] | None,
        settings: CapFiltSettings,
        device: torch.device,
    ) -> None:
        self._model = model
        self._image_processor = image_processor
        self._settings = settings
        self._device = device
        if model is not None:
            self._check_generation(model)

    def _check_generation(self, model: Any) -> None:
        if not hasattr(model, "generate"):
            raise ConfigError(f"{type(model).__name__} cannot write captions; name a captioner.")
        parameters = inspect.signature(model.generate).parameters
        names = [name for name in parameters if name not in ("samples", "num_captions", "seed", "settings")]
        if isinstance(getattr(model, "generation_settings", None), GenerationSettings):
            names += [field.name for field in fields(GenerationSettings)]
        elif any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            names += self._settings.generation_settings  # a model that checks its settings itself
        for name in self._settings.generation_settings:
            if name not in names:
                raise ConfigError(
                    f"generation.{name} is not a setting of the captioner.{suggest(name, names)}"
                )
        if self._settings.captions_per_image:
            # a trial on a black image, so that invalid values are reported before the first shard
            image = self.prepare(Image.new("RGB", (32, 32)))
            try:
                self.caption(None if image is None else image[None], [0])
            except ValueError as error:
                raise ConfigError(f"generation, captions_per_image: {error}") from error

    def prepare(self, image: Image.Image) -> Tensor | None:
        """Return the image as `caption` takes it; None without a model."""
        if self._model is None or self._image_processor is None:
            return None
        return self._image_processor(image)

    @torch.inference_mode()
    def caption(self, images: Tensor | None, seeds: Sequence[int]) -> list[list[str]]:
        """Return captions of each image, which depend on that image and its seed alone.

        Args:
            images: what `prepare` returned for each image, stacked.
        """
        count = self._settings.captions_per_image
        if self._model is None or images is None or not count:
            return [[] for _ in seeds]
        with autocast(self._settings.precision, self._device):
            captions = self._model.generate(
                {"image": images.to(self._device)},
                num_captions=count,
                seed=list(seeds),
                **self._settings.generation_settings,
            )
        return [captions[start : start + count] for start in range(0, len(captions), count)]

    def identity(self) -> str:
        """Return a digest of the weights."""
        return "none" if self._model is None else weights_digest(self._model)
