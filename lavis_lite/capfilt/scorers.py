"""What says how well texts fit images. Others are registered with ``registry.register_scorer``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import registry
from lavis_lite.models.weights.digest import weights_digest
from lavis_lite.models.weights.zoo import load_model_and_preprocess

Scores = list[list[tuple[float | None, ...]]]


@dataclass(frozen=True)
class Asked:
    """What a scorer is asked about: the texts of a batch of images.

    Attributes:
        keys: of the samples.
        texts: of each image, with the `sources` of each: "web" or "synthetic".
        images: what the scorer's `prepare` returned, stacked; None where that was None.
    """

    keys: Sequence[str]
    texts: Sequence[Sequence[str]]
    sources: Sequence[Sequence[str]]
    images: Tensor | None

    @property
    def flat(self) -> list[str]:
        """All texts in a row."""
        return [text for own in self.texts for text in own]

    @property
    def counts(self) -> list[int]:
        """How many texts each image has."""
        return [len(own) for own in self.texts]


class BaseScorer:
    """Gives each text of an image one score or several.

    A subclass declares its settings in a `Config` dataclass, names its scores, and implements
    `score`. What it says of a sample must not depend on the others of its batch.

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
        """Return what `score` wants of an upright RGB image; None where it looks at none."""
        return None

    def score(self, asked: Asked) -> Scores:
        """Return the scores of each text of each image, in the order of `names`; None where there is none."""
        raise NotImplementedError

    def identity(self) -> str:
        """Return what names this scorer's state: other weights, another name."""
        return ""


@registry.register_scorer("blip")
class BlipScorer(BaseScorer):
    """ "itm": how probable a match is; "itc": similarity of the embeddings (section 3.2 of the paper).

    Raises:
        ConfigError: the model cannot match images and texts.
    """

    names = ("itm", "itc")

    @dataclass
    class Config:
        """Settings.

        Attributes:
            model, model_type: registered model that can match; a run folder brings its own.
            checkpoint: run folder, weights file, URL or hub name; None for the published weights.
        """

        model: str = "blip_image_text_matching"
        model_type: str = "base"
        checkpoint: str | None = None

    def __init__(self, config: Config, device: torch.device) -> None:
        super().__init__(config, device)
        self.model, self._eyes = load_model(config.model, config.model_type, config.checkpoint, device)
        if not hasattr(self.model, "match_candidates"):
            raise ConfigError(
                f"{type(self.model).__name__} cannot match images and texts; name a filter that can."
            )

    def prepare(self, image: Image.Image) -> Tensor:
        """Return the image as the model was trained on it."""
        return self._eyes(image)

    @torch.inference_mode()
    def score(self, asked: Asked) -> Scores:
        """Return match probabilities and similarities; an image is encoded once for both."""
        hidden, embeddings = self.model.read_visual({"image": asked.images.to(self.device)})
        text_embeddings = self.model.embed_texts(asked.flat) if asked.flat else embeddings[:0]
        own_embeddings = text_embeddings.split(asked.counts)
        logits = self.model.match_candidates(hidden, asked.texts)
        return [
            list(
                zip(
                    own.float().softmax(1)[:, 1].tolist(),
                    (embedded @ embedding).float().tolist(),
                    strict=True,
                )
            )
            for own, embedded, embedding in zip(logits, own_embeddings, embeddings, strict=True)
        ]

    def identity(self) -> str:
        """Return a digest of the weights."""
        return weights_digest(self.model)


@registry.register_scorer("clip")
class ClipScorer(BaseScorer):
    """ "clip": similarity by a CLIP model of transformers, from -1 to 1."""

    names = ("clip",)

    @dataclass
    class Config:
        """Settings.

        Attributes:
            checkpoint: hub name or folder of a `CLIPModel` with its processor.
        """

        checkpoint: str = "openai/clip-vit-base-patch32"

    def __init__(self, config: Config, device: torch.device) -> None:
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizerFast

        super().__init__(config, device)
        try:
            self.model = CLIPModel.from_pretrained(config.checkpoint).eval().to(device)
            self._eyes = CLIPImageProcessor.from_pretrained(config.checkpoint)
            self._tokenizer = CLIPTokenizerFast.from_pretrained(config.checkpoint)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"scorers.clip.checkpoint: {config.checkpoint} cannot be had: {error}"
            ) from error
        if len(self._tokenizer) < self.model.config.text_config.vocab_size:
            # transformers makes a tokenizer of nothing where the files are missing
            raise ConfigError(
                f"scorers.clip.checkpoint: {config.checkpoint} holds no tokenizer for its model's "
                f"{self.model.config.text_config.vocab_size} entries, only {len(self._tokenizer)}. Put "
                "vocab.json and merges.txt, or tokenizer.json, beside the weights."
            )

    def prepare(self, image: Image.Image) -> Tensor:
        """Return the image as CLIP was trained on it."""
        return self._eyes(images=image, return_tensors="pt")["pixel_values"][0]

    @torch.inference_mode()
    def score(self, asked: Asked) -> Scores:
        """Return cosine similarities."""
        if not asked.flat:
            return [[] for _ in asked.texts]
        vision = self.model.vision_model(asked.images.to(self.device)).pooler_output
        seen = torch.nn.functional.normalize(self.model.visual_projection(vision), dim=-1)
        length = self.model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(
            asked.flat, padding=True, truncation=True, max_length=length, return_tensors="pt"
        )
        words = self.model.text_model(**tokens.to(self.device)).pooler_output
        read = torch.nn.functional.normalize(self.model.text_projection(words), dim=-1)
        shares = read.split(asked.counts)
        return [
            [(value,) for value in (own @ image).float().tolist()]
            for own, image in zip(shares, seen, strict=True)
        ]

    def identity(self) -> str:
        """Return a digest of the weights."""
        return weights_digest(self.model)


@registry.register_scorer("column")
class ColumnScorer(BaseScorer):
    """What a Parquet file says of each sample: an aesthetic score, a similarity computed elsewhere.

    It belongs to the sample's web texts, or, where `of_images`, to all its texts.

    Raises:
        ConfigError: no such file, or no such column in it.
    """

    @dataclass
    class Config:
        """Settings.

        Attributes:
            file: Parquet file.
            column: of numbers; it names the score.
            key: column that holds the samples' keys.
            of_images: whether the number says something of the image, whatever the text.
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
        there = parquet.read_schema(path).names
        for setting in ("column", "key"):
            name = getattr(config, setting)
            if name not in there:
                raise ConfigError(
                    f"scorers.column.{setting}: {path} has no column {name!r}, only {', '.join(there)}."
                )
        table = parquet.read_table(path, columns=[config.key, config.column])
        keys = (str(key) for key in table.column(config.key).to_pylist())
        self.values = dict(zip(keys, table.column(config.column).to_pylist(), strict=True))
        self.names = (config.column,)
        self._digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()

    def score(self, asked: Asked) -> Scores:
        """Return what the file says; None for samples that it does not know, and for synthetic texts."""
        of_all = self.config.of_images
        return [
            [(self.values.get(key) if of_all or source == "web" else None,) for source in own]
            for key, own in zip(asked.keys, asked.sources, strict=True)
        ]

    def identity(self) -> str:
        """Return a digest of the file."""
        return self._digest


def load_model(name: str, model_type: str, checkpoint: str | None, device: torch.device) -> tuple[Any, Any]:
    """Return a model to use and its image processor; a run folder says itself what it holds."""
    from lavis_lite.common.run_folder import RunFolder

    if checkpoint and (run := RunFolder.at(checkpoint)) is not None:
        name, model_type = run.arch()
    loaded, eyes, _ = load_model_and_preprocess(
        name, model_type, is_eval=True, device=device, checkpoint=checkpoint
    )
    return loaded, eyes["eval"]
