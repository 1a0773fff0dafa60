"""What a raw sample of a shard means: an image, a text, and where they came from."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import Dataset

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.media.images import ImageError, open_image
from lavis_lite.datasets.base_dataset import Processor, collate
from lavis_lite.datasets.web.shards import IMAGE_MEMBERS, RawSample, Shard, count_samples
from lavis_lite.datasets.web.texts import TextError, texts_of


class WebDataset(Dataset):
    """Pairs in shards, to be read as a stream; `WebTrainLoader` does.

    Args:
        shards: in a fixed order.
        text_key: where the text stands: "txt" for the member ``.txt``, else a field of the sample's json:
            a text, or a list of texts, one of which is drawn in each epoch.
        shuffle_buffer: samples of which the next one is drawn.
        resampled: whether shards are drawn with replacement, without end; else each is read once an epoch.
        epoch_size: samples of an epoch, of all ranks; needed where `resampled`.

    Raises:
        ConfigError: counts that nobody knows, where they are needed.
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
        if resampled:
            if epoch_size is None:
                raise ConfigError("resampled shards have no end: set epoch_size, the samples of an epoch.")
            self.shards = list(shards)
            self.size = epoch_size
        else:
            self.shards = [
                shard if shard.samples is not None else replace(shard, samples=count_samples(shard))
                for shard in shards
            ]
            self.size = sum(shard.samples or 0 for shard in self.shards)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        raise TypeError("shards are read as a stream; there is no sample by number.")

    def item(self, raw: RawSample) -> dict[str, Any]:
        """Return the training sample of a raw one. Which of several texts is drawn by `random`.

        Raises:
            ImageError: no image, or one that cannot be read.
            ValueError: no text.
        """
        name = f"{raw['__url__']}: {raw['__key__']}"
        image = next((raw[suffix] for suffix in IMAGE_MEMBERS if suffix in raw), None)
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
