"""The base class of data sets: items by index, and how items become a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch.utils.data import Dataset

from lavis_lite.common.media.images import open_image
from lavis_lite.datasets.annotations.image_names import media_of
from lavis_lite.datasets.annotations.parquet_files import StoredImage

Processor = Callable[[Any], Any]


@dataclass(eq=False, repr=False)
class BaseDataset(Dataset[dict[str, Any]]):
    """A list of annotations whose images are in one folder.

    Args:
        annotations: one mapping for each item.
        image_root: folder that the annotated image paths are relative to.
        vis_processor: image -> tensor.
        text_processor: text -> cleaned text.

    Attributes:
        stored_images: images that are not files below `image_root`, by name.
        missing_images: names of annotated images without a file.
        media: key of the image or video in an item.
    """

    annotations: Sequence[Mapping[str, Any]]
    image_root: Path
    vis_processor: Processor
    text_processor: Processor
    stored_images: Mapping[str, StoredImage] = field(default_factory=dict, init=False)
    missing_images: Sequence[str] = field(default=(), init=False)
    media: ClassVar[str] = "image"

    def __post_init__(self) -> None:
        self.image_root = Path(self.image_root)

    def __len__(self) -> int:
        return len(self.annotations)

    def samples_without_file(self) -> int:
        """Return the number of samples whose file is known to be missing."""
        missing = set(self.missing_images)
        if not missing:
            return 0
        return sum(not missing.isdisjoint(media_of(annotation)) for annotation in self.annotations)

    def open_image(self, name: str) -> Image.Image:
        """Return the image called `name` below the image root, upright RGB.

        Raises:
            ImageError: missing, damaged, or not an image.
        """
        stored = self.stored_images.get(name)
        return open_image(self.image_root / name) if stored is None else stored.open()

    def read_media(self, name: str) -> torch.Tensor:
        """Return the processed image called `name`; data sets of videos return processed frames."""
        return self.vis_processor(self.open_image(name))

    def collater(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return one batch of `samples`."""
        return collate(samples)


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join samples: tensors are stacked, lists of texts are concatenated, other values are listed.

    >>> collate([{"text_input": ["a", "b"], "image_id": 1}, {"text_input": ["c", "d"], "image_id": 2}])
    {'text_input': ['a', 'b', 'c', 'd'], 'image_id': [1, 2]}
    """
    batch: dict[str, Any] = {}
    for key, first in samples[0].items():
        values = [sample[key] for sample in samples]
        if isinstance(first, torch.Tensor):
            batch[key] = torch.stack(values)
        elif key == "text_input" and isinstance(first, list):
            batch[key] = [text for texts in values for text in texts]
        else:
            batch[key] = values
    return batch
