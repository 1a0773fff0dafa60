"""One unit from end to end: read, caption, score, select, write. Workers take units as they come free.

A sample's captions depend on its key and the seed; batches are cut within a unit. So who works on a
unit, how many do, and how often they were killed, changes nothing in the output.

Reading, decoding and writing go on in threads of their own while the models work. A sample that cannot
be used is counted with its reason; a unit that cannot be done is set aside with its error.
"""

from __future__ import annotations

import errno
import io
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from filelock import FileLock, Timeout
from PIL import Image
from torch import Tensor

from lavis_lite.capfilt.inputs import Input, Unit
from lavis_lite.capfilt.models import Models
from lavis_lite.capfilt.output import OutputFolder
from lavis_lite.capfilt.samples import Sample, SampleError, opted_out, texts_of, whole
from lavis_lite.capfilt.scorers import Asked
from lavis_lite.capfilt.selection import Candidate, select
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.capfilt.timing import StageTimes
from lavis_lite.common.files import atomic_writer, first_line
from lavis_lite.common.media.images import ImageError, open_image
from lavis_lite.common.seeding import key_seed
from lavis_lite.datasets.web.shards import IMAGE_MEMBERS

logger = logging.getLogger(__name__)
ATTEMPTS = 3
BATCHES_AHEAD = 2
DAMAGE_LOGGED = 5
# Errors that are expected of files, networks and devices; others are logged with their traceback.
EXPECTED_ERRORS = (OSError, RuntimeError, ValueError, MemoryError)
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class Opened:
    """A sample whose image has been read: what the models want of it, and the web's texts."""

    sample: Sample
    tensors: list[Tensor | None]
    texts: list[str]


def run_units(
    given: Input,
    models: Models,
    settings: CapFiltSettings,
    output: OutputFolder,
    progress: Any,
    first: int = 0,
) -> list[str]:
    """Do every unit that nobody has done or is doing; return the names of those that failed.

    Any number of processes may call this on one folder at once.

    Args:
        first: where in the list to begin, so that processes meet late.

    Raises:
        CapFiltError: the disk is full.
    """
    work = _Work(given, models, settings, output, progress)
    with ThreadPoolExecutor(1, thread_name_prefix="capfilt-write") as writer:
        pending: Future[None] | None = None
        for unit in [*given.units[first:], *given.units[:first]]:
            lock = work.take(unit)
            if lock is None:
                continue
            try:
                outcome = work.compute(unit)
                if pending is not None:
                    pending.result()  # no more than one unit waits to be written
            except BaseException:
                lock.release()
                raise
            pending = writer.submit(work.finish, unit, outcome, lock)
        if pending is not None:
            pending.result()
    return work.failed


@dataclass
class _Outcome:
    """What came of a unit: its samples, or the error of the last attempt ("" if there is none)."""

    samples: list[Sample]
    damage: list[str]
    times: StageTimes
    error: str = ""


class _Work:
    """What is common to all units of a worker."""

    def __init__(
        self, given: Input, models: Models, settings: CapFiltSettings, output: OutputFolder, progress: Any
    ) -> None:
        self.given = given
        self.models = models
        self.settings = settings
        self.output = output
        self.progress = progress
        self.failed: list[str] = []

    def take(self, unit: Unit) -> FileLock | None:
        """Return the lock of a unit that is to be done; None where it is done, or another worker's."""
        if self.output.is_done(unit.name):
            self.progress.advance()
            return None
        # the thread that writes lets it go
        lock = FileLock(self.output.folder / "done" / f".{unit.name}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        if self.output.is_done(unit.name):
            lock.release()
            self.progress.advance()
            return None
        return lock

    def compute(self, unit: Unit) -> _Outcome:
        """Do what the models do, in a few attempts."""
        for attempt in range(1, ATTEMPTS + 1):
            outcome = _Outcome([], [], StageTimes())
            try:
                outcome.samples = process(
                    unit, self.given, self.models, self.settings, outcome.damage, outcome.times
                )
                return outcome
            except Exception as error:
                # The error itself would keep all images of the attempt in memory.
                outcome.error = _described(error)
                logger.warning(
                    "%s: attempt %d of %d failed: %s",
                    unit.name,
                    attempt,
                    ATTEMPTS,
                    outcome.error,
                    exc_info=not isinstance(error, EXPECTED_ERRORS),
                )
        return outcome

    def finish(self, unit: Unit, outcome: _Outcome, lock: FileLock) -> None:
        """Write what came of a unit, or set its error aside, and let it go.

        Raises:
            CapFiltError: the disk is full, which every other unit would meet as well.
        """
        note = self.output.folder / "failed" / f"{unit.name}.txt"
        try:
            if not outcome.error:
                self._commit(unit, outcome)
                note.unlink(missing_ok=True)
            if outcome.error:
                with atomic_writer(note, "w") as file:
                    file.write(f"{outcome.error}\n")
        except OSError as error:
            if error.errno in FULL_DISK:
                raise self.output.cannot_write(error) from error
            logger.error("%s: %s", unit.name, _described(error))
            outcome.error = _described(error)
        finally:
            lock.release()
        if outcome.error:
            self.failed.append(unit.name)
        self.progress.advance()

    def _commit(self, unit: Unit, outcome: _Outcome) -> None:
        try:
            marker = self.output.commit(
                unit.name, outcome.samples, outcome.damage, self.models.score_names, outcome.times
            )
        except OSError as error:
            if error.errno in FULL_DISK:
                raise
            outcome.error = _described(error)
            return
        except Exception as error:
            outcome.error = _described(error)
            logger.exception("%s: cannot be written", unit.name)
            return
        for damage in outcome.damage[:DAMAGE_LOGGED]:
            logger.warning("%s", damage)
        if len(outcome.damage) > DAMAGE_LOGGED:
            more = len(outcome.damage) - DAMAGE_LOGGED
            logger.warning("%s: %d more such lines are in done/%s.json", unit.name, more, unit.name)
        counts = ", ".join(f"{marker[key]} {key}" for key in ("samples", "kept", "filtered", "failed"))
        logger.info("%s: %s", unit.name, counts)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def process(
    unit: Unit,
    given: Input,
    models: Models,
    settings: CapFiltSettings,
    damage: list[str],
    times: StageTimes,
) -> list[Sample]:
    """Return the samples of a unit with their candidates judged, in the order of the unit."""
    samples: list[Sample] = []
    reader = ThreadPoolExecutor(1, thread_name_prefix="capfilt-read")
    try:
        batches = _batches(unit, given, models, settings, damage, times)
        for batch in _ahead(batches, reader, times):
            samples += _scored(batch, models, settings, times)
    finally:
        # Whoever stops or fails does not wait for what is being read ahead, perhaps from a slow server.
        reader.shutdown(wait=False, cancel_futures=True)
    judged = iter(select([s.candidates for s in samples if not s.failure], settings))
    return [s if s.failure else replace(s, candidates=next(judged)) for s in samples]


def _batches(
    unit: Unit,
    given: Input,
    models: Models,
    settings: CapFiltSettings,
    damage: list[str],
    times: StageTimes,
) -> Iterator[list[Opened]]:
    """Yield a unit's samples, opened, in batches."""

    def opened(sample: Sample) -> Opened:
        with times.of("decode"):
            return _open(sample, given.text_key, models, settings)

    samples = unit.read(damage.append)
    with ThreadPoolExecutor(max(1, settings.num_workers), thread_name_prefix="capfilt-decode") as decoders:
        while True:
            with times.of("read"):
                batch = [
                    replace(sample, about={**sample.about, "capfilt_shard": unit.name})
                    for sample in islice(samples, settings.batch_size)
                ]
            if not batch:
                return
            yield list(decoders.map(opened, batch))


def _ahead(
    batches: Iterator[list[Opened]], reader: ThreadPoolExecutor, times: StageTimes
) -> Iterator[list[Opened]]:
    """Yield `batches` while the next ones are being read."""
    waiting: list[Future[list[Opened] | None]] = [
        reader.submit(next, batches, None) for _ in range(BATCHES_AHEAD)
    ]
    while True:
        with times.of("wait"):
            batch = waiting.pop(0).result()
        if batch is None:
            return
        waiting.append(reader.submit(next, batches, None))
        yield batch


def _scored(
    batch: Sequence[Opened], models: Models, settings: CapFiltSettings, times: StageTimes
) -> list[Sample]:
    """Return a batch with web and synthetic texts, each scored; or the reason of its failure."""
    usable = [opened for opened in batch if not opened.sample.failure]
    if not usable:
        return [opened.sample for opened in batch]
    keys = [opened.sample.key for opened in usable]
    own_images, *scorers_images = (
        None if tensors[0] is None else torch.stack(tensors)
        for tensors in zip(*(opened.tensors for opened in usable), strict=True)
    )
    with times.of("caption"):
        seeds = [key_seed("caption", settings.seed, key) for key in keys]
        captions = models.caption(own_images, seeds)
    texts = [[*opened.texts, *own] for opened, own in zip(usable, captions, strict=True)]
    sources = [
        ["web"] * len(opened.texts) + ["synthetic"] * len(own)
        for opened, own in zip(usable, captions, strict=True)
    ]
    with times.of("score"):
        scores = models.score([Asked(keys, texts, sources, images) for images in scorers_images])
    done = iter(
        replace(opened.sample, candidates=[Candidate(*one) for one in zip(*own, strict=True)])
        for opened, *own in zip(usable, texts, sources, scores, strict=True)
    )
    return [opened.sample if opened.sample.failure else next(done) for opened in batch]


def _open(sample: Sample, text_key: str, models: Models, settings: CapFiltSettings) -> Opened:
    """Return a sample with its image read, and the web's texts; or with the reason why it cannot be used."""
    try:
        return _opened(sample, text_key, models, settings)
    except SampleError as error:
        failure = str(error)
    except ImageError as error:
        failure = f"unreadable image: {error}"
    except MemoryError:
        failure = "out of memory: the image needs more than there is"
    except Exception as error:  # of an image processor, on an image that its author did not think of
        failure = f"unusable image: {type(error).__name__}: {first_line(error)}"
    return Opened(replace(sample, failure=failure), [], [])


def _opened(sample: Sample, text_key: str, models: Models, settings: CapFiltSettings) -> Opened:
    """Return a sample with its image read, and the web's texts.

    Raises:
        SampleError, ImageError: it cannot be used.
    """
    if sample.failure:
        raise SampleError(sample.failure)
    if opted_out(sample.about, settings.opt_out_keys):
        raise SampleError("opted out")
    if isinstance(url := sample.about.get("url"), str):
        whole(url, "unusable url: it")
    texts = texts_of(sample, text_key)
    image = _image_of(sample)
    if min(image.size) < settings.min_image_size:
        raise SampleError(f"too small: {image.width} x {image.height} pixels")
    return Opened(sample, models.prepare(image), texts)


def _image_of(sample: Sample) -> Image.Image:
    content = next((sample.members[suffix] for suffix in IMAGE_MEMBERS if suffix in sample.members), None)
    if content is None:
        raise SampleError(f"no image: {sample.about.get('image', sample.key)}")
    return open_image(io.BytesIO(content), name=sample.key)
