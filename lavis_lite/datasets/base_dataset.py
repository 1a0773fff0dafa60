"""What a data set is: items by number, and how items become a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from lavis_lite.common.media.images import open_image
from lavis_lite.datasets.annotations.image_names import media_of
from lavis_lite.datasets.annotations.parquet_files import StoredImage

Processor = Callable[[Any], Any]


class BaseDataset(Dataset):
    """A list of annotations whose images lie in one folder.

    Args:
        annotations: one mapping an item.
        image_root: folder that the annotations' image paths are relative to.
        vis_processor: makes a tensor of an image.
        text_processor: cleans a text.

    Attributes:
        stored_images: name of an image -> where it lies, of those that are no files below `image_root`.
        missing_images: names of the annotated images of which there is no file.
    """

    stored_images: Mapping[str, StoredImage] = MappingProxyType({})
    missing_images: Sequence[str] = ()

    def __init__(
        self,
        annotations: Sequence[Mapping[str, Any]],
        image_root: Path,
        vis_processor: Processor,
        text_processor: Processor,
    ) -> None:
        self.annotations = annotations
        self.image_root = Path(image_root)
        self.vis_processor = vis_processor
        self.text_processor = text_processor

    def __len__(self) -> int:
        return len(self.annotations)

    def samples_without_file(self) -> int:
        """Return how many samples are known to lack a file."""
        missing = set(self.missing_images)
        if not missing:
            return 0
        return sum(not missing.isdisjoint(media_of(annotation)) for annotation in self.annotations)

    def open_image(self, name: str) -> Image.Image:
        """Return the image called `name` below the image root, upright RGB.

        Raises:
            ImageError: it is missing, damaged, or no image.
        """
        stored = self.stored_images.get(name)
        return open_image(self.image_root / name) if stored is None else stored.open()

    def collater(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return one batch of `samples`."""
        return collate(samples)


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join samples: tensors are stacked, several texts of one sample are laid end to end, the rest listed.

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
