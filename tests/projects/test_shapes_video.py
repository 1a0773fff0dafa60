"""Short drawn videos: what happens in them is what is said and asked, and decord reads them."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shapes.animate import MOTIONS, Clip, all_clip_answers, clip_captions, sample_clip
from shapes.avi import mjpeg_avi
from shapes.scene import numbered_rng
from shapes.truth import main_object_is_right
from shapes.write_video import VideoSettings, read_clips

SMALL = VideoSettings(seed=3, train_videos=12, val_videos=2, test_videos=3, drawn_size=64)
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [sample_clip(numbered_rng(5, number, "clip")) for number in range(400)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SMALL.draw(tmp_path_factory.mktemp("video") / "data")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def frames_of(path: Path) -> np.ndarray:
    """Return all frames, (frames, height, width, 3)."""
    import decord

    reader = decord.VideoReader(str(path))
    return reader.get_batch(range(len(reader))).asnumpy()


def direction(clip: Clip) -> str | None:
    """Return which way the largest object goes from the first to the last frame, None for none."""
    large = [
        item for frame in (0, clip.frames - 1) for item in clip.scene_at(frame).objects if item.size > 0.3
    ]
    if len(large) < 2:
        return None
    first, last = large
    across, down = last.x - first.x, last.y - first.y
    if abs(across) > abs(down):
        return "right" if across > 0 else "left"
    return "down" if down > 0 else "up" if down < 0 else None


class TestClips:
    def test_a_motion_goes_its_way(self, clips: list[Clip]) -> None:
        for clip in clips:
            if clip.motion != "appears":
                assert direction(clip) == clip.motion
                assert clip.way > 0.2

    def test_every_motion_is_about_equally_frequent(self, clips: list[Clip]) -> None:
        counts = Counter(clip.motion for clip in clips)
        assert set(counts) == set(MOTIONS)
        assert min(counts.values()) > 0.6 * len(clips) / len(MOTIONS)

    def test_objects_stay_in_the_image_and_apart(self, clips: list[Clip]) -> None:
        for clip in clips:
            assert 8 <= clip.frames <= 24
            for frame in range(clip.frames):
                for i, item in enumerate(objects := clip.scene_at(frame).objects):
                    assert item.reach - 0.002 <= min(item.x, item.y)
                    assert max(item.x, item.y) <= 1 - item.reach + 0.002
                    for other in objects[:i]:
                        distance = ((item.x - other.x) ** 2 + (item.y - other.y) ** 2) ** 0.5
                        assert distance > item.reach + other.reach

    def test_many_clips_have_a_second_shape(self, clips: list[Clip]) -> None:
        assert 0.2 < sum(len(clip.scene.objects) == 2 for clip in clips) / len(clips) < 0.8

    def test_what_appears_is_not_there_before(self, clips: list[Clip]) -> None:
        appearing = [clip for clip in clips if clip.motion == "appears"]
        for clip in appearing:
            assert clip.scene.main not in clip.scene_at(0).objects
            assert clip.scene.main in clip.scene_at(clip.frames - 1).objects

    def test_a_clip_survives_json(self, clips: list[Clip]) -> None:
        for clip in clips[:50]:
            assert Clip.from_json(json.loads(json.dumps(clip.to_json()))) == clip

    def test_captions_tell_what_happens(self, clips: list[Clip]) -> None:
        words = {"left": "to the left", "right": "to the right", "up": " up", "down": " down"}
        for number, clip in enumerate(clips):
            texts = clip_captions(clip, numbered_rng(5, number, "captions"), 3)
            assert len(set(texts)) == 3
            for text in texts:
                assert main_object_is_right(text, clip.scene)
                told = {way for way, phrase in words.items() if phrase in text}
                assert told == ({direction(clip)} - {None})
                assert ("appears" in text) == (clip.motion == "appears")


class TestFiles:
    def test_decord_reads_every_frame_as_drawn(self, written: Path) -> None:
        for split in SPLITS:
            for name, clip in read_clips(written, split).items():
                frames = frames_of(written / "videos" / name)
                drawn = np.stack([np.asarray(image) for image in clip.images(64)])
                assert frames.shape == drawn.shape
                assert np.abs(frames.astype(int) - drawn.astype(int)).mean() < 4

    def test_decord_jumps_to_any_frame(self, written: Path) -> None:
        import decord

        (name, clip), *_ = read_clips(written, "test").items()
        reader = decord.VideoReader(str(written / "videos" / name))
        assert reader.get_avg_fps() == 8
        drawn = np.asarray(list(clip.images(64))[5]).astype(int)
        assert np.abs(reader[5].asnumpy().astype(int) - drawn).mean() < 4

    def test_retrieval_records_have_the_layout_of_msrvtt(self, written: Path) -> None:
        for split, count in (("train", 36), ("val", 2), ("test", 3)):
            clips = read_clips(written, split)
            records = read(written / "annotations" / f"shapes_video_retrieval_{split}.json")
            assert len(records) == count
            assert {record["video"] for record in records} == set(clips)
            for record in records:
                assert set(record) == {"video", "caption"}
                assert main_object_is_right(record["caption"], clips[record["video"]].scene)

    def test_answers_are_true_of_the_clips(self, written: Path) -> None:
        types: Counter[str] = Counter()
        answers = set(read(written / "annotations" / "answer_list.json"))
        for split in SPLITS:
            clips = read_clips(written, split)
            for record in read(written / "annotations" / f"shapes_video_qa_{split}.json"):
                assert set(record) == {"question_id", "video", "question", "answer", "question_type"}
                clip = clips[record["video"]]
                main = clip.scene.main
                true = {"color": main.colour, "shape": main.shape, "direction": direction(clip)}
                assert record["answer"] == true[record["question_type"]]
                assert record["answer"] in answers
                words = record["question"].rstrip("?").split()
                assert main.shape in words or main.colour in words
                types[record["question_type"]] += 1
        assert set(types) == {"color", "shape", "direction"}
        assert answers == set(all_clip_answers())

    def test_one_seed_gives_the_same_bytes(self, written: Path, tmp_path: Path) -> None:
        again = SMALL.draw(tmp_path / "data")
        files = [path.relative_to(written) for path in written.rglob("*") if path.is_file()]
        assert len(files) > 25
        assert all((written / name).read_bytes() == (again / name).read_bytes() for name in files)


class TestContainer:
    def test_frames_of_odd_sizes_and_shapes_are_read_back(self, tmp_path: Path) -> None:
        frames = []
        for shade in (0, 60, 120, 180, 240):
            buffer = io.BytesIO()
            Image.new("RGB", (50, 34), (shade, shade, 255 - shade)).save(buffer, "JPEG", quality=95)
            frames.append(buffer.getvalue() + b"\0" * (len(frames) % 2))  # an odd length and an even one
        path = tmp_path / "clip.avi"
        path.write_bytes(mjpeg_avi(frames, 50, 34, frames_per_second=5))
        read_back = frames_of(path)
        assert read_back.shape == (5, 34, 50, 3)
        assert [round(float(frame[..., 0].mean()) / 60) for frame in read_back] == [0, 1, 2, 3, 4]

    def test_no_frames_are_refused(self) -> None:
        with pytest.raises(ValueError, match="0 frames at 8 a second are no video"):
            mjpeg_avi([], 64, 64, 8)
