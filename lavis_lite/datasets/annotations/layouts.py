"""The layouts of a JSON document: COCO's, Karpathy's, sd-scripts', and file names with captions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_lite.datasets.annotations.errors import AnnotationError, ErrorList, Records, listed
from lavis_lite.datasets.annotations.keys import CAPTION_KEYS, IMAGE_KEYS, SPLIT_KEY, has_any

logger = logging.getLogger(__name__)

# Keys under which a document may hold its list of records.
_LIST_KEYS = ("annotations", "data", "records", "samples")


def records_of(content: Any, path: Path) -> Records:
    """Return the records of a JSON document.

    Raises:
        AnnotationError: neither a list nor an object, or a reference to something that is missing.
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
    if not (has_any(content, IMAGE_KEYS) and has_any(content, CAPTION_KEYS)):
        return _by_file_name(content, path)
    values = [value for key, value in content.items() if has_any([key], (*IMAGE_KEYS, *CAPTION_KEYS))]
    if all(isinstance(value, list) for value in values) or any(isinstance(v, Mapping) for v in values):
        raise AnnotationError(
            f"{path}: holds columns, not records. Write a pandas table with "
            'table.to_json(path, orient="records", lines=True).'
        )
    return Records(path, [content])


def _coco(images: Sequence[Any], annotations: Sequence[Any], path: Path) -> Records:
    """Join COCO's captions with the file names of their images."""
    names = _coco_names(images, path)
    errors = ErrorList(path, "annotation")
    records = []
    for index, annotation in enumerate(annotations):
        if not isinstance(annotation, Mapping):
            errors.add(index, f": expected an object, found {annotation!r:.80}.")
        elif _id_key(annotation.get("image_id")) not in names:
            errors.add(index, f": its image_id {annotation.get('image_id')!r:.80} is that of no image.")
        elif not has_any(annotation, CAPTION_KEYS):
            errors.add(
                index, ": has no 'caption'. COCO's captions are in captions_*.json, not in instances_*.json."
            )
        else:  # the "id" is that of the caption, not of the image
            record = {key: value for key, value in annotation.items() if key != "id"}
            records.append({**record, "image": names[_id_key(record["image_id"])]})
    errors.raise_if_any()
    without_caption = set(names) - {_id_key(record["image_id"]) for record in records}
    if without_caption:
        logger.warning(
            "%s: %d images have no caption and are left out: %s.",
            path, len(without_caption), listed([names[key] for key in names if key in without_caption]),
        )  # fmt: skip
    return Records(path, records)


def _coco_names(images: Sequence[Any], path: Path) -> dict[tuple[str, str], str]:
    errors = ErrorList(path, "image")
    names: dict[tuple[str, str], str] = {}
    for index, image in enumerate(images):
        if not isinstance(image, Mapping) or not isinstance(image.get("file_name"), str) or "id" not in image:
            errors.add(index, f": expected an object with 'id' and 'file_name', found {image!r:.80}.")
        elif _id_key(image["id"]) in names:
            errors.add(index, f": has the id {image['id']!r:.80} of another image.")
        else:
            names[_id_key(image["id"])] = image["file_name"]
    errors.raise_if_any()
    return names


def _id_key(value: Any) -> tuple[str, str]:
    """Return a hashable form of an id, different for 1, "1" and true."""
    return type(value).__name__, repr(value)


def _karpathy(images: Sequence[Any], path: Path) -> Records:
    """Return one record for each image, with the split that the file puts it in."""
    errors = ErrorList(path, "image")
    records = []
    for index, image in enumerate(images):
        sentences = image.get("sentences") if isinstance(image, Mapping) else None
        if not isinstance(sentences, list) or not all(
            isinstance(sentence, Mapping) and "raw" in sentence for sentence in sentences
        ):
            errors.add(index, ": expected 'sentences', a list of objects that have 'raw'.")
            continue
        folder, name = image.get("filepath", ""), image.get("filename")
        if not isinstance(name, str) or not isinstance(folder, str):
            errors.add(index, ": expected 'filename', and 'filepath' if there is one, to be texts.")
            continue
        record = {
            "image": f"{folder}/{name}" if folder else name,
            "caption": [sentence["raw"] for sentence in sentences],
            SPLIT_KEY: image.get("split"),
            "image_id": image["cocoid"] if image.get("cocoid") is not None else image.get("imgid"),
        }
        records.append({key: value for key, value in record.items() if value is not None})
    errors.raise_if_any()
    return Records(path, records, "image")


def _by_file_name(content: Mapping[str, Any], path: Path) -> Records:
    """Read {file name: caption}, {file name: [captions]}, and sd-scripts' {file name: {caption, tags}}."""
    records = [
        {**value, "image": name} if isinstance(value, Mapping) else {"image": name, "caption": value}
        for name, value in content.items()
    ]
    return Records(path, records, "key", list(content))
