"""The layouts of a JSON document: COCO's, Karpathy's, sd-scripts', and file names with captions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_lite.datasets.annotations.errors import AnnotationError, ErrorList, Records, listed
from lavis_lite.datasets.annotations.names import CAPTION_KEYS, IMAGE_KEYS, SPLIT_KEY, has_any

logger = logging.getLogger(__name__)

# Keys below which a document holds its list of records.
_LIST_KEYS = ("annotations", "data", "records", "samples")


def records_of(content: Any, path: Path) -> Records:
    """Return the records of a JSON document.

    Raises:
        AnnotationError: neither a list nor an object, or an object that refers to what it does not hold.
    """
    if isinstance(content, list):
        return Records(path, content)
    if not isinstance(content, Mapping):
        raise AnnotationError(f"{path}: expected a list or an object, found {type(content).__name__}.")
    images = content.get("images")
    if isinstance(images, list) and isinstance(content.get("annotations"), list):
        return _coco(images, content["annotations"], path)
    if isinstance(images, list) and any(isinstance(i, Mapping) and "sentences" in i for i in images):
        return _karpathy(images, path)
    for key in _LIST_KEYS:
        if isinstance(content.get(key), list) and all(isinstance(r, Mapping) for r in content[key]):
            return Records(path, content[key])
    if has_any(content, IMAGE_KEYS) and has_any(content, CAPTION_KEYS):
        return _one_record(content, path)
    return _by_file_name(content, path)


def _coco(images: Sequence[Any], annotations: Sequence[Any], path: Path) -> Records:
    """Join COCO's captions with the file names of their images."""
    names = _coco_names(images, path)
    errors = ErrorList(path, "annotation")
    records = []
    for index, annotation in enumerate(annotations):
        if not isinstance(annotation, Mapping):
            errors.add(str(index), f": expected an object, found {annotation!r:.80}.")
        elif _key(annotation.get("image_id")) not in names:
            errors.add(str(index), f": its image_id {annotation.get('image_id')!r:.80} is that of no image.")
        elif not has_any(annotation, CAPTION_KEYS):
            errors.add(
                str(index),
                ": has no 'caption'. COCO's captions are in captions_*.json, not in instances_*.json.",
            )
        else:
            image_id = annotation["image_id"]
            own = {key: value for key, value in annotation.items() if key != "id"}
            records.append({**own, "image": names[_key(image_id)], "image_id": image_id})
    errors.raise_if_any()
    bare = set(names) - {_key(record["image_id"]) for record in records}
    if bare:
        left_out = listed([names[key] for key in names if key in bare])
        logger.warning("%s: %d images have no caption and are left out: %s.", path, len(bare), left_out)
    return Records(path, records)


def _coco_names(images: Sequence[Any], path: Path) -> dict[tuple[str, str], str]:
    errors = ErrorList(path, "image")
    names: dict[tuple[str, str], str] = {}
    for index, image in enumerate(images):
        if not isinstance(image, Mapping) or not isinstance(image.get("file_name"), str) or "id" not in image:
            errors.add(str(index), f": expected an object with 'id' and 'file_name', found {image!r:.80}.")
        elif _key(image["id"]) in names:
            errors.add(str(index), f": has the id {image['id']!r:.80} of another image.")
        else:
            names[_key(image["id"])] = image["file_name"]
    errors.raise_if_any()
    return names


def _key(value: Any) -> tuple[str, str]:
    """Return an id so that 1, "1" and true are three, and lists can be looked up."""
    return type(value).__name__, repr(value)


def _karpathy(images: Sequence[Any], path: Path) -> Records:
    """Return one record an image, with the split that the file puts it in."""
    errors = ErrorList(path, "image")
    records = []
    for index, image in enumerate(images):
        sentences = image.get("sentences") if isinstance(image, Mapping) else None
        if not isinstance(sentences, list) or not all(
            isinstance(s, Mapping) and "raw" in s for s in sentences
        ):
            errors.add(str(index), ": expected 'sentences', a list of objects that have 'raw'.")
        elif not isinstance(image.get("filename"), str) or not isinstance(image.get("filepath", ""), str):
            errors.add(str(index), ": expected 'filename', and 'filepath' if there is one, to be texts.")
        else:
            folder = image.get("filepath", "")
            record = {
                "image": f"{folder}/{image['filename']}" if folder else image["filename"],
                "caption": [sentence["raw"] for sentence in sentences],
            }
            ids = [image[key] for key in ("cocoid", "imgid") if image.get(key) is not None]
            split = {SPLIT_KEY: image["split"]} if image.get("split") is not None else {}
            records.append({**record, **split, **({"image_id": ids[0]} if ids else {})})
    errors.raise_if_any()
    return Records(path, records, "image")


def _one_record(content: Mapping[str, Any], path: Path) -> Records:
    values = [value for key, value in content.items() if has_any([key], (*IMAGE_KEYS, *CAPTION_KEYS))]
    if all(isinstance(value, list) for value in values) or any(
        isinstance(value, Mapping) for value in values
    ):
        raise AnnotationError(
            f"{path}: holds columns, not records. Of a pandas table write "
            'table.to_json(path, orient="records", lines=True).'
        )
    return Records(path, [content])


def _by_file_name(content: Mapping[str, Any], path: Path) -> Records:
    """Read {file name: caption}, {file name: [captions]}, and sd-scripts' {file name: {caption, tags}}."""
    records = [
        {**value, "image": name} if isinstance(value, Mapping) else {"image": name, "caption": value}
        for name, value in content.items()
    ]
    return Records(path, records, "key", list(content))
