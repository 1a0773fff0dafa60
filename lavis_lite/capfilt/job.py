"""A CapFilt job, and what it does to one shard of a crawl.

The life of a crawl shard::

    tar shard, or images of a folder or data set
      |
      |  read       sources.py        in a thread, two batches ahead of the models
      v
    Sample(key, members, about)       a sample that cannot be used gets a `failure`, which is
      |                               all that happens to it: it is counted with its reason
      |  decode     job.py            in threads: image, web texts, opt-out
      v
    DecodedSample(sample, texts, image tensors)
      |
      |  caption    captioner.py      synthetic texts; their seed is the sample's key
      |  score      scorers.py        every text, by every scorer
      v
    Sample(..., candidates=[Candidate(text, source, scores)])
      |
      |  select     selection.py      the whole shard at once: a rule may keep a fraction of it
      v
    ShardResult(samples, damage, error)   with an error after a few attempts
      |
      |  commit     output_writer.py  in a thread, beside the next shard
      v
    shards/NAME.tar, scores/NAME.parquet, times/NAME.json, then done/NAME.json; or failed/NAME.txt
      |
      |  finish     output_writer.py  once all shards are done
      v
    shards/index.json, scores.parquet, kept.json

`workers.py` hands out the shards. Batches do not cross shards and captions depend on the key of their
sample alone, so how many workers there are, and how often they were killed, changes no byte of the output.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lavis_lite.capfilt.captioner import Captioner
from lavis_lite.capfilt.output_reader import CapFiltError
from lavis_lite.capfilt.scorers import Scorers
from lavis_lite.capfilt.selection import Candidate, select
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.capfilt.sources import (
    Input,
    Sample,
    SampleError,
    Unit,
    check_surrogates,
    opted_out,
    web_texts,
)
from lavis_lite.common.files import first_line
from lavis_lite.common.media.images import ImageError, open_image
from lavis_lite.common.seeding import key_seed
from lavis_lite.datasets.web.shards import IMAGE_MEMBERS

BATCHES_AHEAD = 2


@dataclass
class ShardResult:
    """The decided samples of a unit, and what was damaged in its input; or why it could not be done."""

    samples: list[Sample] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    error: str = ""
    started: float = field(default_factory=time.time)


@dataclass
class DecodedSample:
    """A sample with its texts, their sources, and its image tensors: the captioner's, then each scorer's."""

    sample: Sample
    texts: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    images: list[Tensor | None] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """Clean `input` with these models and settings into the folder `output`.

    Attributes:
        verify: read all finished files again, to do damaged units once more.
    """

    input: Input
    captioner: Captioner
    scorers: Scorers
    settings: CapFiltSettings
    output: Path
    verify: bool = False

    def identity(self) -> dict[str, Any]:
        """Return everything that the output depends on, as plain values."""
        return {
            "settings": self.settings.identity(),
            "text_key": self.input.text_key,
            "max_pixels": Image.MAX_IMAGE_PIXELS,
            "models": {"captioner": self.captioner.identity(), **self.scorers.identity()},
            "shards": {unit.name: unit.source for unit in self.input.units},
        }

    def check_output(self) -> None:
        """Refuse an output folder that mixes with the input.

        Raises:
            CapFiltError: the message names the input.
        """
        folder, output = self.output, self.output.resolve()
        for inside in (path.resolve() for path in self.input.folders):
            relations = {
                "is": output == inside,
                "lies in": output.is_relative_to(inside),
                "contains": inside.is_relative_to(output),
            }
            for relation, holds in relations.items():
                if holds:
                    raise CapFiltError(
                        f"{folder}: {relation} the input folder {inside}. Choose another output folder."
                    )
        for unit in self.input.units:
            if Path(unit.source).is_relative_to(output):
                raise CapFiltError(
                    f"{folder}: contains the input {unit.source}. Choose another output folder."
                )

    def process(self, unit: Unit) -> ShardResult:
        """Read, caption, score and select the samples of a unit, in its order."""
        result = ShardResult()
        reader = ThreadPoolExecutor(1, thread_name_prefix="capfilt-read")
        try:
            for batch in _ahead(self._batches(unit, result), reader):
                result.samples += self._score(batch)
        finally:
            # Do not wait for what is being read ahead, perhaps from a slow server.
            reader.shutdown(wait=False, cancel_futures=True)
        usable = [sample.candidates for sample in result.samples if not sample.failure]
        decided = iter(select(usable, self.settings))
        result.samples = [
            sample if sample.failure else replace(sample, candidates=next(decided))
            for sample in result.samples
        ]
        return result

    def _batches(self, unit: Unit, result: ShardResult) -> Iterator[list[DecodedSample]]:
        samples = unit.read(result.damage)
        workers = max(1, self.settings.num_workers)
        with ThreadPoolExecutor(workers, thread_name_prefix="capfilt-decode") as decoders:
            while batch := list(islice(samples, self.settings.batch_size)):
                batch = [replace(s, about={**s.about, "capfilt_shard": unit.name}) for s in batch]
                yield list(decoders.map(self._decode, batch))

    def _decode(self, sample: Sample) -> DecodedSample:
        """Return a sample with texts and image tensors; or with the reason why it cannot be used."""
        if sample.failure:
            return DecodedSample(sample)
        try:
            return self._decode_usable(sample)
        except SampleError as error:
            failure = str(error)
        except ImageError as error:
            failure = f"unreadable image: {error}"
        except MemoryError:
            failure = "out of memory: the image needs more than there is"
        except Exception as error:  # of an image processor, on an image that its author did not expect
            failure = f"unusable image: {type(error).__name__}: {first_line(error)}"
        return DecodedSample(replace(sample, failure=failure))

    def _decode_usable(self, sample: Sample) -> DecodedSample:
        if opted_out(sample.about, self.settings.opt_out_keys):
            raise SampleError("opted out")
        if isinstance(url := sample.about.get("url"), str):
            check_surrogates(url, "unusable url: it")
        texts = web_texts(sample, self.input.text_key)
        content = next((sample.members[suffix] for suffix in IMAGE_MEMBERS if suffix in sample.members), None)
        if content is None:
            raise SampleError(f"no image: {sample.about.get('image', sample.key)}")
        image = open_image(io.BytesIO(content), name=sample.key)
        if min(image.size) < self.settings.min_image_size:
            raise SampleError(f"too small: {image.width} x {image.height} pixels")
        images = [self.captioner.prepare(image), *self.scorers.prepare(image)]
        return DecodedSample(sample, texts, ["web"] * len(texts), images)

    def _score(self, batch: Sequence[DecodedSample]) -> list[Sample]:
        """Return the samples of a batch with web and synthetic texts, each scored."""
        usable = [decoded for decoded in batch if not decoded.sample.failure]
        if usable:
            keys = [decoded.sample.key for decoded in usable]
            captioner_images, *scorer_images = (
                None if images[0] is None else torch.stack(images)
                for images in zip(*(decoded.images for decoded in usable), strict=True)
            )
            seeds = [key_seed("caption", self.settings.seed, key) for key in keys]
            captions = self.captioner.caption(captioner_images, seeds)
            for decoded, synthetic in zip(usable, captions, strict=True):
                decoded.texts += synthetic
                decoded.sources += ["synthetic"] * len(synthetic)
            texts = [decoded.texts for decoded in usable]
            sources = [decoded.sources for decoded in usable]
            scores = self.scorers.score(keys, texts, sources, scorer_images)
            for decoded, by_name in zip(usable, scores, strict=True):
                scored = zip(decoded.texts, decoded.sources, by_name, strict=True)
                candidates = [Candidate(text, source, values) for text, source, values in scored]
                decoded.sample = replace(decoded.sample, candidates=candidates)
        return [decoded.sample for decoded in batch]


def _ahead(
    batches: Iterator[list[DecodedSample]], reader: ThreadPoolExecutor
) -> Iterator[list[DecodedSample]]:
    """Yield `batches` while `reader` reads the next ones."""
    waiting = [reader.submit(next, batches, None) for _ in range(BATCHES_AHEAD)]
    while (batch := waiting.pop(0).result()) is not None:
        waiting.append(reader.submit(next, batches, None))
        yield batch
