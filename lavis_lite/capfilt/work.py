"""One shard from end to end: read, caption, score, select. Workers take shards as they come free.

A sample's captions depend on its key and the seed; batches are cut within a shard. So who works on a
shard, how many do, and how often they were killed, changes nothing in the output.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout
from PIL import Image
from torch import Tensor

from lavis_lite.capfilt.output import OutputFolder, Sample
from lavis_lite.capfilt.select import Candidate, select
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.common.random import key_seed

logger = logging.getLogger(__name__)
ATTEMPTS = 3


class Captioner(Protocol):
    """What writes captions."""

    def __call__(self, images: Tensor, seeds: Sequence[int]) -> list[list[str]]:
        """Return the captions of each of `images`; each image's depend on its own seed alone."""


class Scorer(Protocol):
    """What says how well texts fit an image."""

    def __call__(self, images: Tensor, texts: Sequence[Sequence[str]]) -> list[list[tuple[float, float]]]:
        """Return match probability and similarity of each text of each image."""


@dataclass(frozen=True)
class Shard:
    """A shard to be done: its name in the output, and how to read it.

    Attributes:
        read: yields samples without candidates; tells its argument what is damaged.
    """

    name: str
    read: Callable[[Callable[[str], None]], Iterator[Sample]]


@dataclass(frozen=True)
class Models:
    """The two models of CapFilt, and what makes tensors for each of an image."""

    captioner: Captioner
    captioner_processor: Callable[[Image.Image], Tensor]
    scorer: Scorer
    scorer_processor: Callable[[Image.Image], Tensor]
    open: Callable[[Sample], tuple[Image.Image, str]]


def run_shards(
    shards: Sequence[Shard], models: Models, settings: CapFiltSettings, output: OutputFolder, progress: Any
) -> list[str]:
    """Do every shard that nobody has done or is doing; return the names of those that failed.

    Any number of processes may call this on one folder at once.
    """
    failed = []
    for shard in shards:
        if output.is_done(shard.name):
            progress.advance()
            continue
        try:
            with FileLock(output.folder / "done" / f".{shard.name}.lock", timeout=0):
                if not output.is_done(shard.name) and not _try(shard, models, settings, output):
                    failed.append(shard.name)
        except Timeout:
            continue  # another worker has it
        progress.advance()
    return failed


def _try(shard: Shard, models: Models, settings: CapFiltSettings, output: OutputFolder) -> bool:
    """Do a shard; return whether it could be done in a few attempts. Its error is set aside."""
    for attempt in range(1, ATTEMPTS + 1):
        damage: list[str] = []
        try:
            samples = process(shard, models, settings, damage)
            counts = output.commit(shard.name, samples, damage)
        except (OSError, RuntimeError, ValueError) as error:
            logger.warning("%s: attempt %d of %d failed: %s", shard.name, attempt, ATTEMPTS, error)
            text = f"{type(error).__name__}: {error}\n"
            (output.folder / "failed" / f"{shard.name}.txt").write_text(text, encoding="utf-8")
            continue
        (output.folder / "failed" / f"{shard.name}.txt").unlink(missing_ok=True)
        for note in damage:
            logger.warning("%s", note)
        logger.info("%s: %s", shard.name, counts)
        return True
    return False


def process(shard: Shard, models: Models, settings: CapFiltSettings, damage: list[str]) -> list[Sample]:
    """Return the samples of a shard with their candidates judged, in the order of the shard."""
    samples: list[Sample] = []
    batch: list[Sample] = []
    for sample in shard.read(damage.append):
        batch.append(replace(sample, about={**sample.about, "capfilt_shard": shard.name}))
        if len(batch) == settings.batch_size:
            samples += _scored(batch, models, settings)
            batch = []
    samples += _scored(batch, models, settings)
    judged = iter(select([s.candidates for s in samples if not s.failure], settings))
    return [s if s.failure else replace(s, candidates=next(judged)) for s in samples]


def _scored(batch: Sequence[Sample], models: Models, settings: CapFiltSettings) -> list[Sample]:
    """Return a batch with web and synthetic texts, each scored; or the reason of its failure."""
    opened = [_open(sample, models, settings) for sample in batch]
    usable = [(sample, image, text) for sample, image, text in opened if image is not None]
    if not usable:
        return [sample for sample, _, _ in opened]
    import torch

    to_caption = torch.stack([models.captioner_processor(image) for _, image, _ in usable])
    seeds = [key_seed("caption", settings.seed, sample.key) for sample, _, _ in usable]
    captions = models.captioner(to_caption, seeds)
    texts = [
        ([web] if web else []) + list(synthetic)
        for (_, _, web), synthetic in zip(usable, captions, strict=True)
    ]
    to_score = torch.stack([models.scorer_processor(image) for _, image, _ in usable])
    scores = models.scorer(to_score, texts)
    done = iter(
        replace(sample, candidates=_candidates(web, own, own_scores))
        for (sample, _, web), own, own_scores in zip(usable, texts, scores, strict=True)
    )
    return [sample if image is None else next(done) for sample, image, _ in opened]


def _candidates(web: str, texts: Sequence[str], scores: Sequence[tuple[float, float]]) -> list[Candidate]:
    sources = (["web"] if web else []) + ["synthetic"] * (len(texts) - bool(web))
    return [
        Candidate(text, source, itm, itc)
        for text, source, (itm, itc) in zip(texts, sources, scores, strict=True)
    ]


def _open(
    sample: Sample, models: Models, settings: CapFiltSettings
) -> tuple[Sample, Image.Image | None, str]:
    """Return a sample, its image and its web text; without an image where it cannot be used."""
    if _opted_out(sample.about, settings.opt_out_key):
        return replace(sample, failure="opted out"), None, ""
    try:
        image, web = models.open(sample)
    except (OSError, ValueError) as error:
        return replace(sample, failure=str(error)), None, ""
    if min(image.size) < settings.min_image_size:
        return replace(sample, failure=f"too small: {image.width} x {image.height} pixels"), None, ""
    return sample, image, web


def _opted_out(about: Mapping[str, Any], key: str | None) -> bool:
    value = about.get(key) if key is not None else None
    if isinstance(value, str):
        return any(word in value.lower() for word in ("noai", "noindex", "noimageai"))
    return bool(value)


def shard_names(paths: Sequence[str]) -> list[str]:
    """Return a name in the output for each input shard: its own, numbered where two are called alike."""
    stems = [Path(path).name.removesuffix(".tar") for path in paths]
    return [stem if stems.count(stem) == 1 else f"{number:06d}-{stem}" for number, stem in enumerate(stems)]
