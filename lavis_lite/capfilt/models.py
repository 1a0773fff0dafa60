"""The models at work in CapFilt: a captioner, scorers, and what makes tensors of an image for each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lavis_lite.capfilt.scorers import Asked, BaseScorer
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.common.config.schema import ConfigError, parse
from lavis_lite.common.registry import registry, suggest
from lavis_lite.common.settings import GenerationSettings
from lavis_lite.models.weights.digest import weights_digest

Eyes = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Models:
    """What CapFilt calls.

    Attributes:
        captioner: any model with `generate(samples, num_captions=, seed=, ...)`; None makes no captions.
        eyes: makes of an image what the captioner takes.
        scorers: in the order of their scores.
    """

    captioner: Any
    eyes: Eyes
    scorers: Sequence[BaseScorer]
    settings: CapFiltSettings
    device: torch.device

    @property
    def score_names(self) -> list[str]:
        """Names of all scores."""
        return [name for scorer in self.scorers for name in scorer.names]

    def prepare(self, image: Image.Image) -> list[Tensor | None]:
        """Return what the captioner, and then each scorer, wants of an image."""
        own = self.eyes(image) if self.captioner is not None else None
        return [own, *(scorer.prepare(image) for scorer in self.scorers)]

    @torch.inference_mode()
    def caption(self, images: Tensor, seeds: Sequence[int]) -> list[list[str]]:
        """Return captions of each image; each image's depend on its own seed alone."""
        count = self.settings.captions_per_image
        if self.captioner is None or not count:
            return [[] for _ in seeds]
        with self._autocast():
            captions = self.captioner.generate(
                {"image": images.to(self.device)},
                num_captions=count,
                seed=list(seeds),
                **self.settings.generation_settings,
            )
        return [captions[start : start + count] for start in range(0, len(captions), count)]

    def score(self, asked: Sequence[Asked]) -> list[list[dict[str, float | None]]]:
        """Return the scores of each text of each image, by name; `asked` is what each scorer is asked."""
        found: list[list[dict[str, float | None]]] = [[{} for _ in own] for own in asked[0].texts]
        for scorer, own_question in zip(self.scorers, asked, strict=True):
            with self._autocast():
                scores = scorer.score(own_question)
            for sample, own in zip(found, scores, strict=True):
                for text, values in zip(sample, own, strict=True):
                    text.update(zip(scorer.names, values, strict=True))
        return found

    def _autocast(self) -> AbstractContextManager:
        wanted = self.settings.precision
        if wanted == "auto":
            has_bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
            wanted = "bf16" if has_bf16 else "float32"
        return torch.autocast(self.device.type, torch.bfloat16) if wanted == "bf16" else nullcontext()

    def identity(self) -> dict[str, str]:
        """Return a short name of each model's weights."""
        names = {f"scorer {registry.scorers.name_of(type(s))}": s.identity() for s in self.scorers}
        return {
            "captioner": weights_digest(self.captioner) if self.captioner is not None else "none",
            **names,
        }


def build_models(captioner: Any, eyes: Eyes, settings: CapFiltSettings, device: torch.device) -> Models:
    """Return the models that `settings` name, with this captioner.

    Raises:
        ConfigError: a captioner that cannot write, or not with these settings; an unknown scorer; a rule
            that asks for a score which nobody gives.
    """
    if captioner is not None:
        _check_generation(captioner, settings.generation_settings)
    scorers = [_build_scorer(name, values or {}, device) for name, values in settings.scorers.items()]
    models = Models(captioner, eyes, scorers, settings, device)
    if settings.filtered != "none" or settings.rule in ("best", "fraction"):
        settings.check_scores(models.score_names)
    if captioner is not None and settings.captions_per_image:
        _try_captioner(models)
    return models


def _check_generation(captioner: Any, given: Mapping[str, Any]) -> None:
    if not hasattr(captioner, "generate"):
        raise ConfigError(f"{type(captioner).__name__} cannot write captions; name a captioner.")
    parameters = inspect.signature(captioner.generate).parameters
    known = [name for name in parameters if name not in ("samples", "num_captions", "seed", "settings")]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        if not isinstance(getattr(captioner, "generation_settings", None), GenerationSettings):
            return  # a model of another library, which checks its settings itself
        known += [field.name for field in fields(GenerationSettings)]
    for name in given:
        if name not in known:
            raise ConfigError(f"generation.{name} is nothing that the captioner knows.{suggest(name, known)}")


def _try_captioner(models: Models) -> None:
    """Caption a black image, so that values which cannot be are found before the first shard."""
    image = models.eyes(Image.new("RGB", (32, 32)))
    try:
        models.caption(image[None], [0])
    except ValueError as error:
        raise ConfigError(f"generation, captions_per_image: {error}") from error


def _build_scorer(name: str, values: Mapping[str, Any], device: torch.device) -> BaseScorer:
    scorer_class = registry.get_scorer_class(name)
    return scorer_class(parse(scorer_class.Config, values, where=f"scorers.{name}"), device)
