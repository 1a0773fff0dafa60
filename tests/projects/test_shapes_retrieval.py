"""Drawn scenes and their captions, to find one by the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shapes.builders import ShapesCaptionBuilder, ShapesRetrievalBuilder
from shapes.pictures import read_scenes
from shapes.scene import TINTS, Scene
from shapes.truth import Mention, mentions


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("retrieval") / "data"
    return {
        "folder": str(folder),
        "train_images": 4,
        "val_images": 3,
        "test_images": 100,
        "drawn_size": 32,
        "vis_processor": {"train": {"name": "blip_image_eval"}, "eval": {"name": "blip_image_eval"}},
    }


def fits(text: str, scene: Scene) -> bool:
    """Return whether what `text` says of objects and of the background's colour is so."""
    claimed = mentions(text)
    if claimed[0] != Mention(scene.main.colour, scene.main.shape):
        return False
    tints = {tint for tint in TINTS if tint in text.lower()}
    return set(claimed) <= {Mention(item.colour, item.shape) for item in scene.objects} and (
        tints <= {scene.background.tint}
    )


def test_the_pairs_are_those_of_the_caption_set(settings: dict[str, Any]) -> None:
    retrieval = ShapesRetrievalBuilder.from_config(settings)
    caption = ShapesCaptionBuilder.from_config(settings)
    for split in ("train", "val", "test"):
        assert retrieval.build(split).annotations == caption.build(split).annotations


def test_an_evaluation_split_knows_which_texts_are_whose(settings: dict[str, Any]) -> None:
    split = ShapesRetrievalBuilder.from_config(settings).build("test")
    assert len(split) == len(split.image) == 100
    assert len(split.text) == 500
    scenes = read_scenes(Path(settings["folder"]), "test")
    for text, image in split.txt2img.items():
        assert fits(split.text[text], scenes[split.image[image]])


def test_a_text_mostly_tells_its_image_from_the_others(settings: dict[str, Any]) -> None:
    """One who reads every word finds the image at once far more often than chance."""
    split = ShapesRetrievalBuilder.from_config(settings).build("test")
    scenes = read_scenes(Path(settings["folder"]), "test")
    chances = [1 / sum(fits(text, scenes[image]) for image in split.image) for text in split.text]
    assert sum(chances) / len(chances) > 0.6
