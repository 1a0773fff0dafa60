"""Reading caption annotations from files, checked before anything is trained on them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_lite.common.registry import nearest

IMAGE_KEYS = ("image", "file_name", "filename", "image_path", "file", "path")
CAPTION_KEYS = ("caption", "captions", "text")


class AnnotationError(ValueError):
    """An annotation that cannot be used; the message names file, place and key."""


def read_records(path: Path) -> list[Any]:
    """Return the records of a ``.json`` list or object, ``.jsonl``, ``.csv`` or ``.parquet`` file.

    An object ``{filename: caption}`` becomes records with "image" and "caption".

    Raises:
        AnnotationError: the file is missing, empty or malformed.
    """
    if not path.is_file():
        near = nearest(path.name, [file.name for file in path.parent.glob("*")])
        hint = f" Did you mean {near[0]}?" if near else ""
        raise AnnotationError(f"{path}: no such annotation file.{hint}")
    try:
        records = _parse(path)
    except (json.JSONDecodeError, UnicodeDecodeError, csv.Error) as error:
        raise AnnotationError(f"{path}: is not valid {path.suffix[1:]}: {error}") from error
    if not records:
        raise AnnotationError(f"{path}: holds no annotation.")
    return records


def _parse(path: Path) -> list[Any]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        return _parse_parquet(path)
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    if path.suffix != ".json":
        raise AnnotationError(f"{path}: annotations are read from .json, .jsonl, .csv and .parquet files.")
    content = json.loads(text)
    if isinstance(content, dict):
        return [{"image": image, "caption": caption} for image, caption in content.items()]
    if not isinstance(content, list):
        raise AnnotationError(f"{path}: expected a list or an object, found {type(content).__name__}.")
    return content


def _parse_parquet(path: Path) -> list[Any]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise AnnotationError(f"{path}: reading parquet needs pyarrow: pip install pyarrow.") from error
    try:
        return parquet.read_table(path).to_pylist()
    except ArrowException as error:
        raise AnnotationError(f"{path}: is not valid parquet: {error}") from error


def check_caption_records(records: Iterable[Any], path: Path, captions: str) -> list[dict[str, Any]]:
    """Return `records` with the keys "image" (a relative path) and "caption", each checked.

    Args:
        captions: "one" for a text, "many" for a list of texts, "any" for either, "optional" for
            either or none.

    Raises:
        AnnotationError: names file, index and key of the first fault.
    """

    def check(record: Mapping[str, Any], where: str) -> dict[str, Any]:
        image = value_of(record, IMAGE_KEYS, where)
        caption = value_of(record, CAPTION_KEYS, where, required=captions != "optional")
        return {**record, "image": image_of(image, where), "caption": _caption(caption, captions, where)}

    return check_each(records, path, check)


def check_each(
    records: Iterable[Any], path: Path, check: Callable[[Mapping[str, Any], str], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return what `check` makes of each record and of the place that its complaints should name.

    Raises:
        AnnotationError: a record that is no object, or what `check` complains of.
    """
    checked = []
    for index, record in enumerate(records):
        where = f"{path}: annotation {index}"
        if not isinstance(record, Mapping):
            raise AnnotationError(f"{where}: expected an object, found {record!r:.80}.")
        checked.append(check(record, where))
    return checked


def value_of(record: Mapping[str, Any], keys: Sequence[str], where: str, required: bool = True) -> Any:
    """Return the value of the first of `keys` that `record` has; an empty list where none is required.

    Raises:
        AnnotationError: it has none of them.
    """
    for key in keys:
        if record.get(key) is not None:
            return record[key]
    if not required:
        return []
    found = ", ".join(map(str, record))
    raise AnnotationError(f"{where}: has no {keys[0]!r} (nor {', '.join(keys[1:])}); its keys are {found}.")


def image_of(image: Any, where: str) -> str:
    """Return the path of an image relative to its folder.

    Raises:
        AnnotationError: no path, or one that leaves the folder.
    """
    if not isinstance(image, str) or not image:
        raise AnnotationError(f"{where}, key 'image': expected a file name, found {image!r:.80}.")
    path = PurePosixPath(image.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise AnnotationError(
            f"{where}, key 'image': {image!r} leaves the image folder; give a path relative to it."
        )
    return str(path)


def _caption(caption: Any, expected: str, where: str) -> str | list[str]:
    where = f"{where}, key 'caption'"
    if isinstance(caption, list):
        if expected == "one":
            raise AnnotationError(f"{where}: expected one text, found a list; give one entry a caption.")
        if not caption and expected != "optional":
            raise AnnotationError(f"{where}: the list of captions is empty.")
        return [text_of(text, where) for text in caption]
    text = text_of(caption, where)
    return text if expected == "one" else [text]


def text_of(text: Any, where: str) -> str:
    """Return `text`.

    Raises:
        AnnotationError: no text, or an empty one.
    """
    if not isinstance(text, str):
        raise AnnotationError(f"{where}: expected a text, found {text!r:.80}.")
    if not text.strip():
        raise AnnotationError(f"{where}: is empty; remove the entry or write a caption.")
    return text


def group_by_image(records: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield one record an image, in order of first appearance, "caption" holding all its captions."""
    groups: dict[str, dict[str, Any]] = {}
    for record in records:
        captions = record["caption"] if isinstance(record["caption"], list) else [record["caption"]]
        group = groups.setdefault(record["image"], {**record, "caption": []})
        group["caption"] += captions
    yield from groups.values()
