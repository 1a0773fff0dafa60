"""Reading videos: real files, through whatever reader there is."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lavis_lite.common.media import video as video_module
from lavis_lite.common.media.video import VideoError, open_video, random_indices, uniform_indices
from shapes.avi import mjpeg_avi


def write_video(path: Path, frames: int = 12) -> Path:
    """Write a film whose frames grow brighter, one by one."""
    pictures = []
    for number in range(frames):
        content = io.BytesIO()
        Image.new("RGB", (64, 32), (number * 20,) * 3).save(content, "JPEG", quality=95)
        pictures.append(content.getvalue())
    path.write_bytes(mjpeg_avi(pictures, 64, 32, 8))
    return path


def brightness(frames: np.ndarray) -> list[int]:
    return [round(float(frame.mean()) / 20) for frame in frames]


def test_frames_come_by_number(tmp_path):
    reader = open_video(write_video(tmp_path / "a.avi"))
    assert len(reader) == 12
    frames = reader.frames([9, 0, 4])
    assert frames.shape == (3, 32, 64, 3) and frames.dtype == np.uint8
    assert brightness(frames) == [9, 0, 4]


def test_a_folder_of_pictures_is_a_video(tmp_path):
    for number in (2, 0, 1):
        Image.new("RGB", (16, 16), (number * 20,) * 3).save(tmp_path / f"{number:03d}.png")
    reader = open_video(tmp_path)
    assert len(reader) == 3 and brightness(reader.frames([2, 1])) == [2, 1]


def test_pictures_come_in_the_order_of_their_numbers_without_hidden_ones(tmp_path):
    for number in (10, 9, 2, 1):
        Image.new("RGB", (16, 16), (number * 20,) * 3).save(tmp_path / f"frame{number}.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "._frame1.png")
    reader = open_video(tmp_path)
    assert brightness(reader.frames(range(len(reader)))) == [1, 2, 9, 10]


def test_a_folder_without_pictures_has_no_frame(tmp_path):
    with pytest.raises(VideoError, match="holds no frame"):
        open_video(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no video at all", None])
def test_what_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "bad.avi"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError, match=r"bad\.avi"):
        open_video(path)


def test_an_unknown_reader_names_the_known_ones(tmp_path):
    with pytest.raises(VideoError, match="decord"):
        open_video(write_video(tmp_path / "a.avi"), reader="dekord")


def test_without_any_reader_the_error_says_what_to_install(tmp_path, monkeypatch):
    def absent(path: Path):
        raise ImportError

    monkeypatch.setattr(video_module, "READERS", {"decord": absent, "torchcodec": absent})
    with pytest.raises(VideoError, match="Install decord"):
        open_video(write_video(tmp_path / "a.avi"))


@pytest.mark.parametrize(("frames", "count"), [(1, 4), (7, 8), (8, 8), (100, 8)])
def test_random_frames_lie_each_in_its_span(frames, count):
    torch.manual_seed(0)
    for _ in range(20):
        indices = random_indices(frames, count)
        spans = [(n * frames / count, (n + 1) * frames / count) for n in range(count)]
        assert all(
            int(low) <= index < max(high, low + 1) for index, (low, high) in zip(indices, spans, strict=True)
        )
    assert sorted(uniform_indices(frames, count)) == uniform_indices(frames, count)


def test_random_frames_follow_the_seed():
    torch.manual_seed(3)
    first = random_indices(1000, 8)
    torch.manual_seed(3)
    assert random_indices(1000, 8) == first != random_indices(1000, 8)
