"""The contract of scorers, which rate how well texts fit images, and the built-in scorers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lavis_lite.capfilt.output_names import digest_of
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.common.config.schema import ConfigError, parse
from lavis_lite.common.registry import registry
from lavis_lite.models.weights.digest import weights_digest
from lavis_lite.models.weights.zoo import load_model_and_preprocess

logger = logging.getLogger(__name__)

Scores = list[list[tuple[float | None, ...]]]


@dataclass(frozen=True)
class ScoreRequest:
    """The texts of a batch of images, to be scored.

    Attributes:
        keys: of the samples.
        texts: of each image.
        sources: of each text: "web" or "synthetic".
        images: what the scorer's `prepare` returned for each image, stacked; None if that was None.
    """

    keys: Sequence[str]
    texts: Sequence[Sequence[str]]
    sources: Sequence[Sequence[str]]
    images: Tensor | None

    @property
    def flat(self) -> list[str]:
        """All texts in one list."""
        return [text for texts in self.texts for text in texts]

    @property
    def counts(self) -> list[int]:
        """Number of texts of each image."""
        return [len(texts) for texts in self.texts]


class BaseScorer:
    """Gives each text of an image one or several scores.

    A subclass declares its settings in a `Config` dataclass, names its scores, and implements
    `score`. The scores of a sample must not depend on the other samples of the batch. Register it with
    ``registry.register_scorer(NAME)``.

    Args:
        device: where to compute.
    """

    names: tuple[str, ...] = ()

    @dataclass
    class Config:
        """Settings."""

    def __init__(self, config: Any, device: torch.device) -> None:
        self.config = config
        self.device = device

    def prepare(self, image: Image.Image) -> Tensor | None:
        """Return what `score` needs of an upright RGB image; None if it looks at none."""
        return None

    def score(self, request: ScoreRequest) -> Scores:
        """Return the scores of each text of each image, in the order of `names`; None for an unknown one."""
        raise NotImplementedError

    def identity(self) -> str:
        """Return a name of this scorer's state, which differs for other weights."""
        return ""


class Scorers:
    """The scorers that the settings name.

    Attributes:
        names: of all scores.

    Raises:
        ConfigError: an unknown scorer or setting; a rule that needs a score which no scorer gives.
    """

    def __init__(self, settings: CapFiltSettings, device: torch.device) -> None:
        self._device = device
        self._precision = settings.precision
        self._scorers: dict[str, BaseScorer] = {}
        for name, values in settings.scorers.items():
            scorer_class = registry.get_scorer_class(name)
            config = parse(scorer_class.Config, values or {}, where=f"scorers.{name}")
            self._scorers[name] = scorer_class(config, device)
        self.names = [name for scorer in self._scorers.values() for name in scorer.names]
        if settings.filtered != "none" or settings.rule in ("best", "fraction"):
            settings.check_scores(self.names)

    def prepare(self, image: Image.Image) -> list[Tensor | None]:
        """Return what each scorer needs of an image."""
        return [scorer.prepare(image) for scorer in self._scorers.values()]

    def score(
        self,
        keys: Sequence[str],
        texts: Sequence[Sequence[str]],
        sources: Sequence[Sequence[str]],
        images: Sequence[Tensor | None],
    ) -> list[list[dict[str, float | None]]]:
        """Return the scores of each text of each image, by name; see `ScoreRequest`.

        Args:
            images: of each scorer.
        """
        by_name: list[list[dict[str, float | None]]] = [[{} for _ in of_image] for of_image in texts]
        for scorer, tensors in zip(self._scorers.values(), images, strict=True):
            with autocast(self._precision, self._device):
                scores = scorer.score(ScoreRequest(keys, texts, sources, tensors))
            for sample, sample_scores in zip(by_name, scores, strict=True):
                for text, values in zip(sample, sample_scores, strict=True):
                    text.update(zip(scorer.names, values, strict=True))
        return by_name

    def identity(self) -> dict[str, str]:
        """Return a name of each scorer's state."""
        return {f"scorer {name}": scorer.identity() for name, scorer in self._scorers.items()}


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Return the context in which models compute in `precision`, see `CapFiltSettings`."""
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    use_bf16 = precision == "bf16" or (precision == "auto" and has_bf16)
    return torch.autocast(device.type, torch.bfloat16) if use_bf16 else nullcontext()


@registry.register_scorer("blip")
class BlipScorer(BaseScorer):
    """Scores "itm", the probability of a match, and "itc", the similarity (section 3.2 of the paper).

    Raises:
        ConfigError: the model cannot match images and texts.
    """

    names = ("itm", "itc")

    @dataclass
    class Config:
        """Settings.

        Attributes:
            model, model_type: registered model that can match; a run folder names its own.
            checkpoint: run folder, weights file, URL or hub name; None for the published weights.
        """

        model: str = "blip_image_text_matching"
        model_type: str = "base"
        checkpoint: str | None = None

    def __init__(self, config: Config, device: torch.device) -> None:
        super().__init__(config, device)
        self.model, self.image_processor = load_model(
            config.model, config.model_type, config.checkpoint, device
        )
        if not hasattr(self.model, "match_candidates"):
            raise ConfigError(
                f"{type(self.model).__name__} cannot match images and texts; name a filter that can."
            )

    def prepare(self, image: Image.Image) -> Tensor:
        """Return the image as the model was trained on it."""
        return self.image_processor(image)

    @torch.inference_mode()
    def score(self, request: ScoreRequest) -> Scores:
        """Return match probabilities and similarities; an image is encoded once for both."""
        assert request.images is not None
        hidden, embeddings = self.model.read_visual({"image": request.images.to(self.device)})
        text_embeddings = self.model.embed_texts(request.flat) if request.flat else embeddings[:0]
        logits = self.model.match_candidates(hidden, request.texts)
        scores: Scores = []
        for matches, texts, image in zip(
            logits, text_embeddings.split(request.counts), embeddings, strict=True
        ):
            itm = matches.float().softmax(1)[:, 1]
            itc = (texts @ image).float()
            scores.append(list(zip(itm.tolist(), itc.tolist(), strict=True)))
        return scores

    def identity(self) -> str:
        """Return a digest of the weights."""
        return weights_digest(self.model)


@registry.register_scorer("clip")
class ClipScorer(BaseScorer):
    """Scores "clip", the similarity by a CLIP model of transformers, from -1 to 1.

    Raises:
        ConfigError: the model or its tokenizer cannot be loaded.
    """

    names = ("clip",)

    @dataclass
    class Config:
        """Settings.

        Attributes:
            checkpoint: hub name or folder of a `CLIPModel` with its processor.
        """

        checkpoint: str = "openai/clip-vit-base-patch32"

    def __init__(self, config: Config, device: torch.device) -> None:
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        super().__init__(config, device)
        checkpoint = config.checkpoint
        try:
            self.model = CLIPModel.from_pretrained(checkpoint).eval().to(device)
            self.image_processor = CLIPImageProcessor.from_pretrained(checkpoint)
            self.tokenizer = CLIPTokenizer.from_pretrained(checkpoint)
        except (OSError, ValueError) as error:
            raise ConfigError(f"scorers.clip.checkpoint: cannot load {checkpoint}: {error}") from error
        if len(self.tokenizer) < self.model.config.text_config.vocab_size:
            # transformers builds an empty tokenizer if its files are missing
            raise ConfigError(
                f"scorers.clip.checkpoint: {checkpoint} holds no tokenizer for its model's "
                f"{self.model.config.text_config.vocab_size} entries, only {len(self.tokenizer)}. Put "
                "vocab.json and merges.txt, or tokenizer.json, beside the weights."
            )

    def prepare(self, image: Image.Image) -> Tensor:
        """Return the image as CLIP was trained on it."""
        return self.image_processor(images=image, return_tensors="pt")["pixel_values"][0]

    @torch.inference_mode()
    def score(self, request: ScoreRequest) -> Scores:
        """Return cosine similarities."""
        assert request.images is not None
        if not request.flat:
            return [[] for _ in request.texts]
        normalize = torch.nn.functional.normalize
        vision = self.model.vision_model(request.images.to(self.device)).pooler_output
        images = normalize(self.model.visual_projection(vision), dim=-1)
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            request.flat, padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        text = self.model.text_model(**tokens.to(self.device)).pooler_output
        texts = normalize(self.model.text_projection(text), dim=-1)
        return [
            [(value,) for value in (of_image @ image).float().tolist()]
            for of_image, image in zip(texts.split(request.counts), images, strict=True)
        ]

    def identity(self) -> str:
        """Return a digest of the weights."""
        return weights_digest(self.model)


@registry.register_scorer("column")
class ColumnScorer(BaseScorer):
    """Scores from a Parquet file: an aesthetic score of each sample, a similarity computed elsewhere.

    Raises:
        ConfigError: the file or the column does not exist.
    """

    @dataclass
    class Config:
        """Settings.

        Attributes:
            file: Parquet file.
            column: of numbers; also the name of the score.
            key: column of the samples' keys.
            of_images: the number rates the image, so it holds for all its texts; else for the web texts.
        """

        file: str
        column: str
        key: str = "key"
        of_images: bool = False

    def __init__(self, config: Config, device: torch.device) -> None:
        from pyarrow import parquet

        super().__init__(config, device)
        path = Path(config.file).expanduser()
        if not path.is_file():
            raise ConfigError(f"scorers.column.file: {path}: no such file.")
        columns = parquet.read_schema(path).names
        for setting in ("column", "key"):
            name = getattr(config, setting)
            if name not in columns:
                raise ConfigError(
                    f"scorers.column.{setting}: {path} has no column {name!r}, only {', '.join(columns)}."
                )
        table = parquet.read_table(path, columns=[config.key, config.column])
        keys = (str(key) for key in table.column(config.key).to_pylist())
        self.values = dict(zip(keys, table.column(config.column).to_pylist(), strict=True))
        self.names = (config.column,)
        self._digest = digest_of(path.read_bytes())

    def score(self, request: ScoreRequest) -> Scores:
        """Return the column's values; None for unknown samples and, unless `of_images`, synthetic texts."""
        every_text = self.config.of_images
        return [
            [(self.values.get(key) if every_text or source == "web" else None,) for source in sources]
            for key, sources in zip(request.keys, request.sources, strict=True)
        ]

    def identity(self) -> str:
        """Return a digest of the file."""
        return self._digest


def load_model(name: str, model_type: str, checkpoint: str | None, device: torch.device) -> tuple[Any, Any]:
    """Return a model for inference and its image processor; a run folder names its own model."""
    from lavis_lite.common.run_folder import RunFolder

    run = RunFolder.at(checkpoint) if checkpoint else None
    arch, arch_type = run.arch() if run is not None else (name, model_type)
    model, image_processors, _ = load_model_and_preprocess(
        arch, arch_type, is_eval=True, device=device, checkpoint=checkpoint
    )
    return model, image_processors["eval"]


def __getattr__(name: str) -> Any:
    if name == "Asked":
        logger.warning("lavis_lite.capfilt.scorers.Asked is now called ScoreRequest.")
        return ScoreRequest
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
