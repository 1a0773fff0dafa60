"""Pictures with the texts of the model, small enough to be embedded in a page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from lavis_lite.common.media.images import ImageError, open_image

THUMBNAIL_SIDE = 192


@dataclass(frozen=True)
class Thumbnail:
    """A small JPEG as a data URI, and its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class GalleryItem:
    """A picture with what the model said, or a text with the pictures that it retrieved.

    Attributes:
        caption: what the model said (a caption, an answer, a class, the texts it retrieved), or the query.
        error: why there is no picture.
        more: further pictures of a query, the best first.
    """

    name: str
    caption: str
    references: list[str]
    picture: Thumbnail | None
    error: str | None
    more: list[Thumbnail] = field(default_factory=list)


@dataclass(frozen=True)
class Gallery:
    """Some of `total` items, or the reason why there are none."""

    title: str
    items: list[GalleryItem] = field(default_factory=list)
    total: int = 0
    error: str | None = None


def make_gallery(
    title: str, records: Sequence[Any], roots: Sequence[Path], limit: int, source: str
) -> Gallery:
    """Show at most `limit` of `records`, evenly spaced.

    Args:
        title: heading.
        records: what a task recorded of each sample: mappings with "caption", "answer", "prediction" or
            "found", and, if known, "image_path" (or "image"), "image_id", "references".
        roots: folders that a relative image path may start from; the first that has it is used.
        limit: how many items at most.
        source: name of the records in messages.
    """
    shown = [record for record in records if isinstance(record, Mapping) and _SAID & record.keys()]
    if not shown:
        return Gallery(title, error=f"{source} {'holds nothing to show' if records else 'is empty'}.")
    count = min(limit, len(shown))
    items = [_item(shown[index * len(shown) // count], roots) for index in range(count)]
    return Gallery(title, items, len(shown))


def make_thumbnail(path: Path) -> Thumbnail:
    """Read an image and shrink it, upright, until no side is longer than `THUMBNAIL_SIDE`.

    Raises:
        ImageError: missing, damaged, or not an image.
    """
    return shrink(open_image(path))


def shrink(image: Image.Image) -> Thumbnail:
    """Return `image`, which is changed, so small that no side is longer than `THUMBNAIL_SIDE`."""
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    image.info.clear()  # a report does not reveal where a photograph was taken
    content = io.BytesIO()
    image.save(content, "JPEG", quality=82)
    encoded = base64.b64encode(content.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", *image.size)


_SAID = {"caption", "answer", "prediction", "found"}


def _item(record: Mapping[str, Any], roots: Sequence[Path]) -> GalleryItem:
    try:
        return _shown(record, roots)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        name = _text(record.get("image_id", record.get("image", "")))
        return GalleryItem(name, "", [], None, f"this record is damaged ({type(error).__name__}: {error})")


def _shown(record: Mapping[str, Any], roots: Sequence[Path]) -> GalleryItem:
    if record.get("query") == "text":
        return _retrieved_pictures(record, roots)
    references = record.get("references") or []
    if not isinstance(references, list | tuple):
        references = [references]
    if "label" in record and not references:
        references = [f"class {record['label']}"]
    name = record.get("image_id", record.get("image", record.get("image_path", "")))
    if "caption" in record:
        said = record["caption"]
    elif "answer" in record:
        name, said = record.get("question", name), record["answer"]
    elif "found" in record:
        said = "\n".join(f"{hit['score']:.2f}  {hit['text']}" for hit in record["found"])
    else:
        name, said = record.get("text_input") or name, f"class {record['prediction']}"
    picture, error = _picture(record.get("image_path") or record.get("image"), roots)
    return GalleryItem(_text(name), _text(said), list(dict.fromkeys(map(_text, references))), picture, error)


def _retrieved_pictures(record: Mapping[str, Any], roots: Sequence[Path]) -> GalleryItem:
    """Return a text with the pictures that it retrieved, the best one large."""
    hits = [_picture(hit.get("image_path"), roots) for hit in record["found"]]
    pictures = [picture for picture, _ in hits if picture is not None]
    places = [place for place, hit in enumerate(record["found"], start=1) if hit.get("right")]
    return GalleryItem(
        name="" if places else f"its picture is at place {int(record['rank']) + 1}",
        caption=_text(record["text"]),
        references=[f"its picture is at place {place}" for place in places],
        picture=pictures[0] if pictures else None,
        error=hits[0][1] if hits and not pictures else None,
        more=pictures[1:],
    )


def _picture(image: Any, roots: Sequence[Path]) -> tuple[Thumbnail | None, str | None]:
    if not isinstance(image, str) or not image:
        return None, "no image path was recorded"
    try:
        candidates = [root / image for root in roots]
        path = next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
        return make_thumbnail(path), None
    except (ImageError, OSError, ValueError) as error:  # a path may be too long or hold a zero byte
        return None, str(error)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
