"""Options that several commands have."""

from __future__ import annotations

import argparse

import pytest
from PIL import Image

from lavis_lite.commands.arguments import add_max_pixels
from lavis_lite.common.media.images import open_image


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_max_pixels(parser)
    return parser


def test_it_holds_for_the_images_that_are_opened_afterwards(parser, tmp_path, monkeypatch):
    monkeypatch.setenv("LAVIS_LITE_MAX_PIXELS", "1000")  # so that it is put back
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("RGB", (60, 40)).save(tmp_path / "large.png")
    parser.parse_args(["--max-pixels", "2400"])
    assert open_image(tmp_path / "large.png").size == (60, 40)


@pytest.mark.parametrize(
    ("value", "message"),
    [("0", "expected a whole number of at least 1, found '0'"), ("many", "at least 1, found 'many'")],
)
def test_a_value_that_is_no_number_of_pixels_is_refused(parser, capsys, value, message):
    with pytest.raises(SystemExit):
        parser.parse_args(["--max-pixels", value])
    assert message in capsys.readouterr().err
