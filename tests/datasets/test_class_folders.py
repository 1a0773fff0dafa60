"""A folder with one folder a class."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from lavis_lite.datasets.annotations import AnnotationError
from lavis_lite.datasets.classification import labeled_folders


def draw(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)


def test_hidden_folders_and_those_of_systems_are_no_classes(tmp_path):
    draw(tmp_path / "dog" / "b.jpg", tmp_path / "cat" / "deep" / "a.jpg", tmp_path / "cat" / "._a.jpg")
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".thumbnails", "#recycle"):
        draw(tmp_path / name / "a.jpg")
    records, classes = labeled_folders(tmp_path)
    assert classes == ["cat", "dog"]
    assert records == [{"image": "cat/deep/a.jpg", "label": 0}, {"image": "dog/b.jpg", "label": 1}]


def test_a_link_to_a_folder_is_a_class(tmp_path):
    draw(tmp_path / "elsewhere" / "a.jpg")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "cat").symlink_to(tmp_path / "elsewhere")
    assert labeled_folders(tmp_path / "root") == ([{"image": "cat/a.jpg", "label": 0}], ["cat"])


def test_images_outside_the_classes_and_empty_classes_are_named(tmp_path, caplog):
    draw(tmp_path / "cat" / "a.jpg", tmp_path / "stray.jpg")
    (tmp_path / "dog").mkdir()
    with caplog.at_level(logging.WARNING):
        records, classes = labeled_folders(tmp_path)
    assert len(records) == 1 and classes == ["cat", "dog"]
    assert "1 images that lie in no class folder, stray.jpg the first." in caplog.text
    assert "1 class folders without an image, dog the first." in caplog.text


@pytest.mark.parametrize("names", [[], ["a.jpg"], [".hidden/a.jpg"]])
def test_a_folder_without_images_in_classes_is_refused(tmp_path, names):
    draw(*(tmp_path / name for name in names))
    with pytest.raises(AnnotationError, match="expected one folder a class, with its images"):
        labeled_folders(tmp_path)
