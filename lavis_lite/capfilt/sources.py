"""The input of CapFilt: samples from tar shards, a folder or a registered data set, one unit at a time."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lavis_lite.capfilt.output_names import canonical_source, digest_of, unit_names
from lavis_lite.capfilt.output_reader import CapFiltError
from lavis_lite.capfilt.selection import Candidate
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.decoding import lone_surrogate
from lavis_lite.common.files import FileError, open_regular
from lavis_lite.common.media.image_files import find_images
from lavis_lite.common.media.images import ImageError, open_image_file
from lavis_lite.datasets.web.samples import MAX_TEXT_BYTES
from lavis_lite.datasets.web.shards import IMAGE_MEMBERS, Shard, raw_samples
from lavis_lite.datasets.web.texts import TextError, decode, read_fields

logger = logging.getLogger(__name__)

MAX_UNIT_BYTES = 4 << 30  # a unit is in memory as a whole
_SPARE_LEVELS = 100  # of nesting, which later readers of a json may need on their stack


class SampleError(ValueError):
    """A sample that cannot be used: "KIND: DETAIL"; samples are counted by kind."""


@dataclass(frozen=True)
class Sample:
    """A sample of a crawl.

    Attributes:
        key: its name in the shard.
        members: the bytes of its image and its other files, by suffix.
        about: its json.
        candidates: its texts; empty if it failed.
        failure: why it cannot be used, as "KIND: DETAIL"; empty if it can.
    """

    key: str
    members: Mapping[str, bytes]
    about: Mapping[str, Any]
    candidates: Sequence[Candidate] = ()
    failure: str = ""

    @property
    def kept(self) -> list[Candidate]:
        """The texts that it keeps."""
        return [candidate for candidate in self.candidates if candidate.kept]


@dataclass(frozen=True)
class Unit:
    """A unit of work: a tar shard, or a fixed number of images.

    Attributes:
        name: of its files in the output.
        read: yields its samples; appends damaged and unused parts to its argument.
        source: its path or address, the same from every working directory.
    """

    name: str
    read: Callable[[list[str]], Iterator[Sample]]
    source: str


@dataclass(frozen=True)
class Input:
    """All units of a crawl.

    Attributes:
        text_key: where the web text is: "txt", or a field of a sample's json.
        folders: input folders, which the output must not mix with.
    """

    units: Sequence[Unit]
    text_key: str
    folders: Sequence[Path] = ()


def from_shards(shards: Sequence[Shard], text_key: str = "txt", folders: Sequence[Path] = ()) -> Input:
    """Return tar shards as units; a shard that is listed twice is read once."""
    by_source: dict[str, Shard] = {}
    for shard in shards:
        first = by_source.setdefault(canonical_source(shard.name), shard)
        if first is not shard:
            logger.warning("%s: is listed twice (also as %s) and read once.", shard.name, first.name)
    names = unit_names([shard.name for shard in by_source.values()])
    units = [
        Unit(name, partial(_read_tar, shard), source)
        for name, (source, shard) in zip(names, by_source.items(), strict=True)
    ]
    return Input(units, text_key, folders)


def _read_tar(shard: Shard, damage: list[str]) -> Iterator[Sample]:
    count = 0
    for raw in raw_samples(shard, damage.append, whole_or_error=True):
        members = {key: value for key, value in raw.items() if not key.startswith("__")}
        yield _tar_sample(raw["__key__"], members)
        count += 1
    if not count and damage:
        raise CapFiltError(f"no sample can be read: {damage[0]}")
    if not count:
        damage.append(f"{shard.name}: holds no samples")
    if shard.samples not in (None, count):
        damage.append(f"{shard.name}: holds {count} samples, its index says {shard.samples}")


def _tar_sample(key: str, members: Mapping[str, bytes]) -> Sample:
    if not members.get("json", b"").strip():
        return Sample(key, members, {})
    try:
        about = read_fields(dict(members))
        nested: Any = about
        for _ in range(_SPARE_LEVELS):
            nested = [nested]
        json.dumps(nested)
    except RecursionError:
        return Sample(key, members, {}, failure="invalid json: nested too deeply")
    except TextError as error:
        return Sample(key, members, {}, failure=f"invalid json: {error}")
    return Sample(key, members, about)


@dataclass(frozen=True)
class _ImageFile:
    """An image file and what is known about it; if `text_file` is given, its lines are the texts."""

    path: Path
    about: Mapping[str, Any]
    text_file: Path | None = None


def from_dataset(dataset: Any, unit_size: int) -> Input:
    """Return a data set as units: its shards, or `unit_size` of its images each.

    Raises:
        ConfigError: the data set has neither shards nor annotated image files.
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
    """Return the images of a folder, each with the lines of the ``.txt`` beside it as texts.

    Raises:
        ConfigError: the folder holds no image.
    """
    images = find_images([folder])

    def file_of(number: int) -> _ImageFile:
        image = images[number]
        about = {"image": image.relative_to(folder).as_posix(), "caption": []}
        return _ImageFile(image, about, image.with_suffix(".txt"))

    return Input(list(_file_units(len(images), unit_size, file_of, folder)), "caption", [folder])


def _file_units(
    count: int, unit_size: int, file_of: Callable[[int], _ImageFile], root: Path
) -> Iterator[Unit]:
    starts = range(0, count, unit_size)
    digits = max(6, len(str(len(starts))))
    for index, start in enumerate(starts):
        numbers = range(start, min(start + unit_size, count))
        # a digest of the unit's files, so that a later run notices other files
        abouts = [file_of(number).about for number in numbers]
        listed = "\n".join(f"{about['image']}\t{about['caption']!r}" for about in abouts)
        digest = digest_of(listed.encode("utf-8", "surrogatepass"), size=6)
        source = f"{canonical_source(str(root))} images {numbers.start} to {numbers.stop - 1} ({digest})"
        yield Unit(f"{index:0{digits}d}", partial(_read_files, numbers, file_of), source)


def _read_files(numbers: range, file_of: Callable[[int], _ImageFile], damage: list[str]) -> Iterator[Sample]:
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


def _file_sample(key: str, file: _ImageFile) -> Sample:
    suffix = file.path.suffix.lower().lstrip(".")
    about = file.about
    members: dict[str, bytes] = {}
    failure = ""
    try:
        with open_image_file(file.path) as image:
            members[suffix if suffix in IMAGE_MEMBERS else "jpg"] = image.read()
        if file.text_file is not None and file.text_file.exists():
            about = {**about, "caption": _lines_of(file.text_file)}
    except SampleError as error:
        failure = str(error)
    except (ImageError, FileError, OSError) as error:
        failure = f"no {'text' if members else 'image'}: {error}"
    return Sample(key, members, about, failure=failure)


def _lines_of(path: Path) -> list[str]:
    with open_regular(path) as file:
        content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise SampleError(f"unusable text: {path} has more than {MAX_TEXT_BYTES >> 20} MiB")
    # not splitlines, which also splits at U+2028 and the like
    return _decode_text(content, path.name).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _decode_text(content: bytes, name: str) -> str:
    """Return the text of a file: UTF-8, or UTF-16 and UTF-32 with a byte order mark.

    Raises:
        SampleError: any other encoding; a guess could change the text.
    """
    try:
        text = decode(content, name)
    except TextError as error:
        raise SampleError(f"unusable text: {error}") from error
    if "\0" in text:
        raise SampleError(f"unusable text: its {name} has zero bytes; write it as UTF-8")
    return text


def web_texts(sample: Sample, text_key: str) -> list[str]:
    """Return the non-empty web texts of a sample, with each run of white space replaced by one space.

    Args:
        text_key: "txt", or the field of the json that holds a text or a list of texts. A field that is
            missing, null or NaN holds none.

    Raises:
        SampleError: a value that is not text, or that UTF-8 cannot express.
    """
    if text_key == "txt":
        values: Any = [_decode_text(sample.members.get("txt", b""), ".txt")]
    else:
        values = sample.about.get(text_key)
        values = values if isinstance(values, list) else [values]
    texts = []
    for value in values:
        if value is None or value != value:
            continue
        if not isinstance(value, str):
            raise SampleError(f"unusable text: {text_key!r} holds {type(value).__name__}, not text")
        check_surrogates(value, f"unusable text: {text_key!r}")
        texts.append(" ".join(value.split()))
    return [text for text in texts if text]


def check_surrogates(text: str, name: str) -> None:
    """Refuse a text with half of a surrogate pair, which UTF-8 cannot express.

    Raises:
        SampleError: the message begins with `name`.
    """
    index = lone_surrogate(text)
    if index is not None:
        raise SampleError(f"{name} has half of a surrogate pair ({text[index]!a}) at position {index}")


def opted_out(about: Mapping[str, Any], keys: Sequence[str]) -> bool:
    """Return whether a field of `keys` is true or says "noai", "noimageai" or "noindex"."""
    for value in map(about.get, keys):
        if isinstance(value, str):
            text = value.lower()
            words = ("noai", "noindex", "noimageai", "true", "yes", "1")
            if text not in ("false", "no", "0") and any(word in text for word in words):
                return True
        elif value and value == value:  # NaN means nothing
            return True
    return False
