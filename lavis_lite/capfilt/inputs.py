"""What CapFilt reads: tar shards, or any registered data set, a unit of work at a time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis_lite.capfilt.output import Sample
from lavis_lite.common.image_files import find_images
from lavis_lite.common.images import ImageError, open_image_file
from lavis_lite.common.schema import ConfigError
from lavis_lite.datasets.web.shards import IMAGE_MEMBERS, raw_samples
from lavis_lite.datasets.web.shards import Shard as TarShard

OnDamage = Callable[[str], None]


@dataclass(frozen=True)
class Unit:
    """What one worker does at a time: its name in the output, and how to read it.

    Attributes:
        read: yields samples without candidates; tells its argument what is damaged.
        source: where it lies, for the record.
    """

    name: str
    read: Callable[[OnDamage], Iterator[Sample]]
    source: str


@dataclass(frozen=True)
class Input:
    """All units, and where the web's text stands: "txt", or a field of a sample's json."""

    units: Sequence[Unit]
    text_key: str


def from_shards(shards: Sequence[TarShard], text_key: str = "txt") -> Input:
    """Return tar shards as units."""
    names = unit_names([shard.name for shard in shards])
    return Input(
        [Unit(name, _tar_reader(shard), shard.name) for name, shard in zip(names, shards, strict=True)],
        text_key,
    )


def from_dataset(dataset: Any, unit_size: int) -> Input:
    """Return a data set as units: shards as they are, else so many samples each.

    Raises:
        ConfigError: a data set of neither shards nor annotated images.
    """
    if hasattr(dataset, "shards"):
        return from_shards(dataset.shards, dataset.text_key)
    if not hasattr(dataset, "annotations") or not hasattr(dataset, "image_root"):
        raise ConfigError(
            f"capfilt reads shards, or a data set of annotated image files; {type(dataset).__name__} is "
            "neither."
        )
    starts = range(0, len(dataset.annotations), unit_size)
    digits = max(6, len(str(len(starts))))
    return Input(
        [
            Unit(
                f"{number:0{digits}d}",
                _file_reader(dataset, range(start, min(start + unit_size, len(dataset.annotations)))),
                f"{dataset.image_root} {start}",
            )
            for number, start in enumerate(starts)
        ],
        "caption",
    )


def from_folder(folder: Path, unit_size: int) -> Input:
    """Return the images of a folder, with the lines of the ``.txt`` beside each, if there is one.

    Raises:
        ConfigError: no image there.
    """
    annotations = []
    for image in find_images([folder]):
        text = image.with_suffix(".txt")
        lines = text.read_text(encoding="utf-8-sig").splitlines() if text.is_file() else []
        annotations.append({"image": image.relative_to(folder).as_posix(), "caption": lines})
    return from_dataset(_Images(annotations, folder), unit_size)


@dataclass(frozen=True)
class _Images:
    annotations: Sequence[Mapping[str, Any]]
    image_root: Path


def _tar_reader(shard: TarShard) -> Callable[[OnDamage], Iterator[Sample]]:
    def read(on_damage: OnDamage) -> Iterator[Sample]:
        count = 0
        for raw in raw_samples(shard, on_damage, whole_or_error=True):
            members = {key: value for key, value in raw.items() if not key.startswith("__")}
            yield Sample(raw["__key__"], members, _json(members.get("json")))
            count += 1
        if shard.samples not in (None, count):
            on_damage(f"{shard.name}: holds {count} samples, its index says {shard.samples}")

    return read


def _json(content: bytes | None) -> dict[str, Any]:
    try:
        about = json.loads(content) if content else {}
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _file_reader(dataset: Any, numbers: range) -> Callable[[OnDamage], Iterator[Sample]]:
    def read(on_damage: OnDamage) -> Iterator[Sample]:
        for number in numbers:
            annotation: Mapping[str, Any] = dataset.annotations[number]
            path = Path(dataset.image_root) / str(annotation["image"])
            about = {
                "image": str(annotation["image"]),
                "caption": annotation.get("caption") or "",
                **{k: v for k, v in annotation.items() if k in ("image_id", "opt_out", "url")},
            }
            suffix = path.suffix.lower().lstrip(".")
            suffix = suffix if suffix in IMAGE_MEMBERS else "jpg"
            key = f"{number:09d}"
            try:
                with open_image_file(path) as file:
                    content = file.read()
            except (ImageError, OSError) as error:
                yield Sample(key, {}, about, failure=str(error))
                continue
            yield Sample(key, {suffix: content}, about)

    return read


def unit_names(paths: Sequence[str]) -> list[str]:
    """Return a name in the output for each shard: its own, numbered where two are called alike."""
    stems = [Path(path).name.removesuffix(".tar") for path in paths]
    count = Counter(stems)
    return [stem if count[stem] == 1 else f"{number:06d}-{stem}" for number, stem in enumerate(stems)]
