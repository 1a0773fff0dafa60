"""Image-text pairs of shards: from raw to training samples, and a check of the first ones."""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import Dataset

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.media.images import ImageError, open_image
from lavis_lite.datasets.base_dataset import Processor, collate
from lavis_lite.datasets.web.samples import image_in
from lavis_lite.datasets.web.shards import (
    SHARD_ERRORS,
    Damage,
    RawSample,
    Shard,
    UnusedMember,
    count_samples,
    error_text,
    read_shard,
)
from lavis_lite.datasets.web.tar import shown
from lavis_lite.datasets.web.texts import TextError, texts_of

# How much `check_usable` looks at.
MAX_SAMPLES = 100
MAX_SHARDS = 10


class WebDataset(Dataset[Any]):
    """Pairs in shards, read as a stream by `WebTrainLoader`.

    Args:
        shards: in a fixed order.
        text_key: the text: "txt" for the member ``.txt``, else a field of the sample's json: a text, or a
            list of texts, one of which is drawn in each epoch.
        shuffle_buffer: number of samples from which the next one is drawn.
        resampled: draw shards with replacement, without end; otherwise each is read once an epoch.
        epoch_size: samples of an epoch, of all ranks; required if `resampled`.

    Raises:
        ConfigError: sample counts that are needed and unknown.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        vis_processor: Processor,
        text_processor: Processor,
        *,
        text_key: str = "txt",
        shuffle_buffer: int = 1000,
        resampled: bool = False,
        epoch_size: int | None = None,
    ) -> None:
        self.vis_processor = vis_processor
        self.text_processor = text_processor
        self.text_key = text_key
        self.shuffle_buffer = shuffle_buffer
        self.resampled = resampled
        self.shards = list(shards)
        if not resampled:
            self.shards = [
                shard if shard.samples is not None else replace(shard, samples=count_samples(shard))
                for shard in shards
            ]
            self.size = sum(shard.samples or 0 for shard in self.shards)
        elif epoch_size is None:
            raise ConfigError("resampled shards have no end: set epoch_size, the samples of an epoch.")
        else:
            self.size = epoch_size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        raise TypeError("shards are read as a stream; samples have no index.")

    def item(self, raw: RawSample) -> dict[str, Any]:
        """Return the training sample of a raw one; one of several texts is drawn by `random`.

        Raises:
            ImageError: no image, or one that cannot be read.
            ValueError: no text.
        """
        name = f"{raw['__url__']}: {raw['__key__']}"
        image = image_in(raw)
        if image is None:
            raise ImageError(f"{name}: has no image.")
        try:
            texts = texts_of(raw, self.text_key)
        except TextError as error:
            raise TextError(f"{name}: {error}.") from error
        text = texts[0] if len(texts) == 1 else random.choice(texts)
        return {
            "image": self.vis_processor(open_image(io.BytesIO(image), name=name)),
            "text_input": self.text_processor(text),
            "image_id": raw["__key__"],
            "instance_id": raw["__key__"],
        }

    def collater(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return one batch."""
        return collate(samples)


def check_usable(shards: Sequence[Shard], text_key: str) -> None:
    """Look for one sample that can be trained on, among the first samples of the first shards.

    Raises:
        ConfigError: there is none; says what is wrong with them, and what the shards hold.
    """
    samples = 0
    errors: Counter[str] = Counter()
    members: Counter[str] = Counter()
    for shard in shards[:MAX_SHARDS]:
        if samples == MAX_SAMPLES:
            break
        try:
            for item in read_shard(shard):
                if isinstance(item, Damage):
                    errors[item.text] += 1
                elif isinstance(item, UnusedMember):
                    members[f"members not used ({item.reason})"] += 1
                else:
                    reason = _why_unusable(item, text_key)
                    if not reason:
                        return
                    errors[reason] += 1
                    members.update(_endings(item))
                    samples += 1
                    if samples == MAX_SAMPLES:
                        break
        except SHARD_ERRORS as error:
            errors[error_text(shard, error)] += 1
    where = f"{shards[0].name} and the following shards" if len(shards) > 1 else shards[0].name
    reasons = "; ".join(f"{count} x {text}" for text, count in errors.most_common(3))
    contents = ", ".join(f"{count} {text}" for text, count in members.most_common(6))
    raise ConfigError(
        f"shards: {where}: none of the first {samples} samples can be trained on"
        f"{f' ({reasons})' if reasons else ''}. They hold {contents or 'no members'}. A sample is KEY.jpg "
        "with KEY.txt, or with a KEY.json of which text_key names a field; "
        f"text_key is {text_key!r}."
    )


def _why_unusable(raw: RawSample, text_key: str) -> str:
    """Return why a sample cannot be trained on, without its name, so that equal errors can be counted."""
    image = image_in(raw)
    if image is None:
        return "has no image"
    try:
        texts_of(raw, text_key)
        open_image(io.BytesIO(image), name="its image")
    except (ValueError, OSError, MemoryError) as error:
        return str(error) or type(error).__name__
    return ""


def _endings(raw: RawSample) -> list[str]:
    """Return the names of a sample's members from their first dot on."""
    inner = str(raw["__key__"]).rpartition("/")[2].partition(".")[2]
    prefix = f".{shown(inner, 40)}" if inner else ""
    return [f"{prefix}.{suffix}" for suffix in raw if not suffix.startswith("__")]
