"""The drawn data sets: made here, at first use, without any network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch.utils.data import Dataset

from lavis_lite.common.registry import registry
from lavis_lite.common.storage.cache import resolve
from lavis_lite.datasets.builders.caption import CaptionBuilder
from lavis_lite.datasets.caption import CaptionEvalDataset
from lavis_lite.datasets.shapes.read import read_scenes
from lavis_lite.datasets.shapes.truth import main_object_is_right
from lavis_lite.datasets.shapes.write import write_shapes_caption


class ShapesCaptionEvalDataset(CaptionEvalDataset):
    """Drawn images, of which the truth is known."""

    scenes: Mapping[str, Any]

    def truth_metrics(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the share of captions that name the main object's shape and colour correctly."""
        right = [
            main_object_is_right(
                record["caption"], self.scenes[self.annotations[record["instance_id"]]["image"]]
            )
            for record in records
        ]
        return {"object_accuracy": sum(right) / len(right)} if right else {}


@registry.register_builder("shapes_caption")
class ShapesCaptionBuilder(CaptionBuilder):
    """Captions of drawn scenes, in COCO's layout."""

    default_configs: ClassVar[Mapping[str, str]] = {"default": "shapes_caption"}
    eval_dataset_cls = ShapesCaptionEvalDataset

    @dataclass
    class Config(CaptionBuilder.Config):
        """Settings.

        Attributes:
            folder: where the data set is drawn; None for a folder in the cache, named by the settings.
            seed: of the scenes.
            train_images, val_images, test_images: how many of each.
            drawn_size: side of the drawn images in pixels.
        """

        folder: str | None = None
        seed: int = 42
        train_images: int = 4000
        val_images: int = 200
        test_images: int = 300
        drawn_size: int = 96

    config: Config

    def splits(self) -> list[str]:
        """Return the names of the splits that can be built."""
        return ["train", "val", "test"]

    def build(self, split: str) -> Dataset:
        """Return one split, drawing the data set first if it is not there."""
        self.check_split(split)
        folder = self.draw()
        is_train = split == "train"
        annotations = self.read([folder / "annotations" / f"shapes_karpathy_{split}.json"], is_train)
        dataset = self.dataset(annotations, folder / "images", is_train)
        if not is_train:
            dataset.scenes = read_scenes(folder, split)
        return dataset

    def draw(self) -> Path:
        """Draw the data set if it is not there, and return its folder."""
        config = self.config
        counts = (config.train_images, config.val_images, config.test_images)
        name = "_".join(str(number) for number in (config.seed, *counts, config.drawn_size))
        folder = Path(config.folder).expanduser() if config.folder else resolve(f"shapes/caption_{name}")
        write_shapes_caption(
            folder,
            seed=config.seed,
            train=config.train_images,
            val=config.val_images,
            test=config.test_images,
            image_size=config.drawn_size,
        )
        return folder
