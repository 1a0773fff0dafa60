"""Write drawn images with noisy captions as tar shards, as crawls of the web are kept.

==========================  =================================================================
``shapes-000000.tar``       samples of three files: ``<key>.jpg``, ``<key>.txt`` (the caption)
                            and ``<key>.json`` (caption, width, height)
``index.json``              the shards, with how many samples and bytes each holds
``truth.jsonl``             by key, what is wrong with the caption, and what the image shows
``shapes.json``             the settings of all this
==========================  =================================================================

Nothing in a shard tells which captions are good.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .grammar import captions
from .scene import Scene, numbered_rng, numbered_scene
from .web_noise import CLEAN, NOISES, WebCaption, web_caption
from .write import CAPTIONS_PER_IMAGE, ShapesError
from .write_images import check_sizes, drawn_jpeg, numbers_of
from .write_once import write_json, write_jsonl, write_once

TRUTH_FILE = "truth.jsonl"
INDEX_FILE = "index.json"


@dataclass
class WebSettings:
    """All that the files depend on.

    Args:
        samples: how many images there are.
        samples_per_shard: the last shard may hold fewer.
        drawn_size: pixels a side.
        mismatched: share of the captions that are another image's.
        boilerplate: share that tell nothing.
        half_right: share with one object's colour or shape wrong.
    """

    version = 1  # no field: count up whenever one seed no longer gives the same files
    seed: int = 42
    samples: int = 12000
    samples_per_shard: int = 500
    drawn_size: int = 64
    mismatched: float = 0.25
    boilerplate: float = 0.15
    half_right: float = 0.15

    def check(self) -> list[tuple[str, str]]:
        """Return complaints about values that cannot be."""
        complaints = check_sizes(self, "samples")
        if self.samples_per_shard < 1:
            complaints.append(("samples_per_shard", f"is {self.samples_per_shard}; give 1 or more."))
        shares = [getattr(self, noise) for noise in NOISES]
        complaints += [
            (noise, f"is {share}; give a share from 0 to 1.")
            for noise, share in zip(NOISES, shares, strict=True)
            if not 0 <= share <= 1
        ]
        if sum(shares) > 1:
            text = f"and {' and '.join(NOISES[1:])} sum to {sum(shares):g}; give at most 1 together."
            complaints.append((NOISES[0], text))
        return complaints


@dataclass(frozen=True)
class WebTruth:
    """What is known of one sample.

    Args:
        noise: "clean", or what is wrong: "mismatched", "boilerplate" or "half_right".
        caption: the one in the shard.
        captions: true ones.
        wrong: more about what is wrong.
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


def write_web(folder: str | Path, settings: WebSettings) -> Path:
    """Write the shards into `folder`, if they are not there yet, and return the folder.

    Sample n depends on the seed, n, the image size and the shares of noise only.

    Raises:
        ShapesError: settings that cannot be, or a folder that holds something else.
    """
    return write_once("shapes_web", folder, settings, lambda aside: _write_all(aside, settings))


def shard_paths(folder: Path) -> list[Path]:
    """Return the shards that `write_web` wrote into `folder`, in order."""
    index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
    return [folder / shard["name"] for shard in index["shards"]]


def read_truth(folder: Path) -> dict[str, WebTruth]:
    """Return what is known of each sample that `write_web` wrote into `folder`, by key.

    Raises:
        ShapesError: nothing is known there.
    """
    file = folder / TRUTH_FILE
    if not file.is_file():
        raise ShapesError(
            f"{file}: no such file; name the folder that the shards of shapes_web were drawn in."
        )
    lines = file.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return {
        record["key"]: WebTruth(**{**record, "scene": Scene.from_json(record["scene"])}) for record in records
    }


def _write_all(folder: Path, settings: WebSettings) -> None:
    shards, truths = [], []
    for first in range(0, settings.samples, settings.samples_per_shard):
        name = f"shapes-{len(shards):06d}.tar"
        numbers = range(first, min(first + settings.samples_per_shard, settings.samples))
        samples = [_sample(settings, name, number) for number in numbers]
        with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as tar:
            for truth in samples:
                for file_name, content in _files(truth, settings.drawn_size):
                    _add(tar, file_name, content)
        size = (folder / name).stat().st_size
        shards.append({"name": name, "samples": len(samples), "bytes": size})
        truths += samples
    write_json({"samples": settings.samples, "shards": shards}, folder / INDEX_FILE)
    lines = [{**asdict(truth), "scene": truth.scene.to_json()} for truth in truths]
    write_jsonl(lines, folder / TRUTH_FILE)


def _sample(settings: WebSettings, shard: str, index: int) -> WebTruth:
    number = numbers_of("web", "train", settings.samples)[index]
    scene = numbered_scene(settings.seed, number)
    told = _told(settings, number)
    true = captions(scene, numbered_rng(settings.seed, number, "captions"), CAPTIONS_PER_IMAGE)
    return WebTruth(f"{index:09d}", shard, told.noise, told.text, true, told.wrong, scene)


def _told(settings: WebSettings, number: int) -> WebCaption:
    shares = [getattr(settings, noise) for noise in NOISES]
    clean = max(0.0, 1 - sum(shares))
    noise = numbered_rng(settings.seed, number, "noise").choices((*NOISES, CLEAN), (*shares, clean))[0]
    return web_caption(settings.seed, number, noise)


def _files(truth: WebTruth, image_size: int) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of a sample."""
    about: Mapping[str, Any] = {"caption": truth.caption, "width": image_size, "height": image_size}
    yield f"{truth.key}.jpg", drawn_jpeg(truth.scene, image_size)
    yield f"{truth.key}.txt", truth.caption.encode("utf-8")
    yield f"{truth.key}.json", json.dumps(about).encode("utf-8")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)  # no owner and no time: the same bytes wherever they are written
    entry.size = len(content)
    entry.mode = 0o644
    tar.addfile(entry, io.BytesIO(content))
