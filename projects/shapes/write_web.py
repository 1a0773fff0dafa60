"""Drawn images with noisy captions in tar shards, as crawls of the web are stored.

==========================  =================================================================
``shapes-000000.tar``       samples of three files: ``<key>.jpg``, ``<key>.txt`` (the caption)
                            and ``<key>.json`` (caption, width, height)
``index.json``              the shards, with how many samples and bytes each holds
``truth.jsonl``             what is wrong with the caption of each key, and what the image shows
==========================  =================================================================

Nothing in a shard tells which captions are true.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from .pictures import jpeg, numbers_of
from .render import render
from .scene import Scene, numbered_rng, numbered_scene
from .web_noise import CLEAN, NOISES, web_caption
from .write_caption import true_captions
from .write_once import DrawnSettings, ShapesError, check_sizes, write_json, write_jsonl

TRUTH_FILE = "truth.jsonl"
INDEX_FILE = "index.json"


@dataclass(frozen=True)
class WebTruth:
    """What is known of one sample.

    Args:
        key: key of the sample.
        shard: file name of its shard.
        noise: "clean", or what is wrong: "mismatched", "boilerplate" or "half_right".
        caption: the one in the shard.
        captions: true ones.
        wrong: details of what is wrong.
        scene: what the image shows.
    """

    key: str
    shard: str
    noise: str
    caption: str
    captions: list[str]
    wrong: str
    scene: Scene

    @property
    def clean(self) -> bool:
        """Whether all of the caption is true."""
        return self.noise == CLEAN


@dataclass
class WebSettings(DrawnSettings):
    """All that the files depend on. Sample n depends on all fields but `samples` and `samples_per_shard`.

    Attributes:
        samples: how many images there are.
        samples_per_shard: the last shard may hold fewer.
        drawn_size: width and height of the images in pixels.
        mismatched: share of the captions that are another image's.
        boilerplate: share that says nothing of the image.
        half_right: share with one object's color or shape wrong.
    """

    data_set: ClassVar[str] = "shapes_web"
    samples: int = 12000
    samples_per_shard: int = 500
    drawn_size: int = 64
    mismatched: float = 0.25
    boilerplate: float = 0.15
    half_right: float = 0.15

    def check(self) -> list[tuple[str, str]]:
        """Return an error for each value that cannot be drawn."""
        errors = check_sizes(self, "samples")
        if self.samples_per_shard < 1:
            errors.append(("samples_per_shard", f"is {self.samples_per_shard}; give 1 or more."))
        shares = self._shares()
        errors += [
            (noise, f"is {share}; give a share from 0 to 1.")
            for noise, share in zip(NOISES, shares, strict=True)
            if not 0 <= share <= 1
        ]
        if sum(shares) > 1:
            text = f"and {' and '.join(NOISES[1:])} sum to {sum(shares):g}; give at most 1 together."
            errors.append((NOISES[0], text))
        return errors

    def write(self, folder: Path) -> None:
        """Write all files into `folder`."""
        shards, truths = [], []
        for first in range(0, self.samples, self.samples_per_shard):
            name = f"shapes-{len(shards):06d}.tar"
            last = min(first + self.samples_per_shard, self.samples)
            samples = [self._sample(name, index) for index in range(first, last)]
            with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as tar:
                for truth in samples:
                    for file_name, content in _files(truth, self.drawn_size):
                        _add(tar, file_name, content)
            size = (folder / name).stat().st_size
            shards.append({"name": name, "samples": len(samples), "bytes": size})
            truths += samples
        write_json({"samples": self.samples, "shards": shards}, folder / INDEX_FILE)
        lines = [{**asdict(truth), "scene": truth.scene.to_json()} for truth in truths]
        write_jsonl(lines, folder / TRUTH_FILE)

    def _sample(self, shard: str, index: int) -> WebTruth:
        number = numbers_of(self.data_set, "train", self.samples)[index]
        scene = numbered_scene(self.seed, number)
        shares = self._shares()
        weights = (*shares, max(0.0, 1 - sum(shares)))
        noise = numbered_rng(self.seed, number, "noise").choices((*NOISES, CLEAN), weights)[0]
        noisy = web_caption(self.seed, number, noise)
        true = true_captions(scene, self.seed, number)
        return WebTruth(f"{index:09d}", shard, noisy.noise, noisy.text, true, noisy.wrong, scene)

    def _shares(self) -> list[float]:
        return [getattr(self, noise) for noise in NOISES]


def shard_paths(folder: Path) -> list[Path]:
    """Return the shards that were drawn into `folder`, in order."""
    index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
    return [folder / shard["name"] for shard in index["shards"]]


def read_truth(folder: Path) -> dict[str, WebTruth]:
    """Return key -> what is known of each sample that was drawn into `folder`.

    Raises:
        ShapesError: the folder has no file of the truth.
    """
    file = folder / TRUTH_FILE
    if not file.is_file():
        raise ShapesError(f"{file}: no such file; name the folder that shapes_web was drawn into.")
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {
        record["key"]: WebTruth(**{**record, "scene": Scene.from_json(record["scene"])}) for record in records
    }


def _files(truth: WebTruth, image_size: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of a sample."""
    about = {"caption": truth.caption, "width": image_size, "height": image_size}
    yield f"{truth.key}.jpg", jpeg(render(truth.scene, image_size))
    yield f"{truth.key}.txt", truth.caption.encode("utf-8")
    yield f"{truth.key}.json", json.dumps(about).encode("utf-8")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)  # without owner and time, so that the bytes are always the same
    entry.size = len(content)
    entry.mode = 0o644
    tar.addfile(entry, io.BytesIO(content))
