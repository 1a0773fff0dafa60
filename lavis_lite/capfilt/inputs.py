"""What CapFilt reads: tar shards, or any registered data set, a unit of work at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lavis_lite.capfilt.begin import CapFiltError
from lavis_lite.capfilt.names import canonical_source, digest_of, unit_names
from lavis_lite.capfilt.samples import Sample, SampleError, decode_text, parse_json
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import FileError, open_regular
from lavis_lite.common.media.image_files import find_images
from lavis_lite.common.media.images import ImageError, open_image_file
from lavis_lite.datasets.web.samples import MAX_TEXT_BYTES
from lavis_lite.datasets.web.shards import IMAGE_MEMBERS, raw_samples
from lavis_lite.datasets.web.shards import Shard as TarShard

logger = logging.getLogger(__name__)

OnDamage = Callable[[str], None]

# A unit is in memory as a whole.
MAX_UNIT_BYTES = 4 << 30


@dataclass(frozen=True)
class Unit:
    """What one worker does at a time: its name in the output, and how to read it.

    Attributes:
        read: yields samples without candidates; tells its argument what is damaged or not used.
        source: where it lies, in one spelling for every working directory.
    """

    name: str
    read: Callable[[OnDamage], Iterator[Sample]]
    source: str


@dataclass(frozen=True)
class Input:
    """All units.

    Attributes:
        text_key: where the web's text stands: "txt", or a field of a sample's json.
        folders: that the output must stay out of.
    """

    units: Sequence[Unit]
    text_key: str
    folders: Sequence[Path] = ()


@dataclass(frozen=True)
class _ImageFile:
    """An image that lies in a folder, and what is known about it.

    Attributes:
        text_file: holds a text in each line; None where `about` holds the texts.
    """

    path: Path
    about: Mapping[str, Any]
    text_file: Path | None = None


def from_shards(shards: Sequence[TarShard], text_key: str = "txt") -> Input:
    """Return tar shards as units; one that is listed twice, however it is spelled, is read once."""
    by_source: dict[str, TarShard] = {}
    for shard in shards:
        first = by_source.setdefault(canonical_source(shard.name), shard)
        if first is not shard:
            logger.warning("%s: is listed twice (also as %s) and read once.", shard.name, first.name)
    names = unit_names([shard.name for shard in by_source.values()])
    return Input(
        [
            Unit(name, _tar_reader(shard), source)
            for name, (source, shard) in zip(names, by_source.items(), strict=True)
        ],
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
    root = Path(dataset.image_root)

    def file_of(number: int) -> _ImageFile:
        annotation: Mapping[str, Any] = dataset.annotations[number]
        about = {
            "image": str(annotation["image"]),
            "caption": annotation.get("caption") or "",
            **{k: v for k, v in annotation.items() if k in ("image_id", "opt_out", "url")},
        }
        return _ImageFile(root / about["image"], about)

    return Input(list(_file_units(len(dataset.annotations), unit_size, file_of, root)), "caption")


def from_folder(folder: Path, unit_size: int) -> Input:
    """Return the images of a folder, with the lines of the ``.txt`` beside each, if there is one.

    Raises:
        ConfigError: no image there.
    """
    images = find_images([folder])

    def file_of(number: int) -> _ImageFile:
        image = images[number]
        return _ImageFile(
            image, {"image": image.relative_to(folder).as_posix(), "caption": []}, image.with_suffix(".txt")
        )

    return Input(list(_file_units(len(images), unit_size, file_of, folder)), "caption", [folder])


def _file_units(
    count: int, unit_size: int, file_of: Callable[[int], _ImageFile], root: Path
) -> Iterator[Unit]:
    """Yield units of `unit_size` files. A unit's source names its files, so that others are noticed."""
    starts = range(0, count, unit_size)
    digits = max(6, len(str(len(starts))))
    for number, start in enumerate(starts):
        numbers = range(start, min(start + unit_size, count))
        listed = "\n".join(f"{about['image']}\t{about['caption']!r}" for about in _abouts(numbers, file_of))
        digest = digest_of(listed.encode("utf-8", "surrogatepass"), size=6)
        source = f"{canonical_source(str(root))} images {numbers.start} to {numbers.stop - 1} ({digest})"
        yield Unit(f"{number:0{digits}d}", _file_reader(numbers, file_of), source)


def _abouts(numbers: Iterable[int], file_of: Callable[[int], _ImageFile]) -> Iterator[Mapping[str, Any]]:
    return (file_of(number).about for number in numbers)


def _tar_reader(shard: TarShard) -> Callable[[OnDamage], Iterator[Sample]]:
    def read(on_damage: OnDamage) -> Iterator[Sample]:
        damage: list[str] = []

        def note(text: str) -> None:
            damage.append(text)
            on_damage(text)

        count = 0
        for raw in raw_samples(shard, note, whole_or_error=True):
            members = {key: value for key, value in raw.items() if not key.startswith("__")}
            yield _tar_sample(raw["__key__"], members)
            count += 1
        if not count and damage:
            raise CapFiltError(f"no sample can be read: {damage[0]}")
        if not count:
            on_damage(f"{shard.name}: holds no samples")
        if shard.samples not in (None, count):
            on_damage(f"{shard.name}: holds {count} samples, its index says {shard.samples}")

    return read


def _tar_sample(key: str, members: Mapping[str, bytes]) -> Sample:
    try:
        return Sample(key, members, parse_json(members))
    except SampleError as error:
        return Sample(key, members, {}, failure=str(error))


def _file_reader(
    numbers: range, file_of: Callable[[int], _ImageFile]
) -> Callable[[OnDamage], Iterator[Sample]]:
    def read(on_damage: OnDamage) -> Iterator[Sample]:
        total = 0
        for number in numbers:
            file = file_of(number)
            sample = _file_sample(f"{number:09d}", file)
            total += sum(map(len, sample.members.values()))
            if total > MAX_UNIT_BYTES:
                raise CapFiltError(
                    f"{file.path}: a unit of {len(numbers)} images takes more than {MAX_UNIT_BYTES >> 30} "
                    "GiB of memory. Set a smaller shard_size."
                )
            yield sample

    return read


def _file_sample(key: str, file: _ImageFile) -> Sample:
    suffix = file.path.suffix.lower().lstrip(".")
    suffix = suffix if suffix in IMAGE_MEMBERS else "jpg"
    about = file.about
    members: dict[str, bytes] = {}
    try:
        with open_image_file(file.path) as image:
            members[suffix] = image.read()
        if file.text_file is not None and file.text_file.exists():
            about = {**about, "caption": _lines_of(file.text_file)}
    except SampleError as error:
        return Sample(key, members, about, failure=str(error))
    except (ImageError, FileError, OSError) as error:
        return Sample(key, members, about, failure=f"no {'text' if members else 'image'}: {error}")
    return Sample(key, members, about)


def _lines_of(path: Path) -> list[str]:
    """Return the lines of a text file, of which U+2028 and the like end none.

    Raises:
        FileError: it cannot be read.
        SampleError: it is too large, or not UTF-8.
    """
    with open_regular(path) as file:
        content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise SampleError(f"unusable text: {path} has more than {MAX_TEXT_BYTES >> 20} MiB")
    return decode_text(content, path.name).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def with_folders(given: Input, folders: Iterable[Path]) -> Input:
    """Return `given` with further folders that the output must stay out of."""
    return replace(given, folders=[*given.folders, *folders])
