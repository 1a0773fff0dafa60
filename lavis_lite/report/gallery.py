"""Pictures beside what was said about them, small enough to travel inside a page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from lavis_lite.common.images import ImageError, open_image

THUMBNAIL_SIDE = 192


@dataclass(frozen=True)
class Thumbnail:
    """A small JPEG as a data URI, and its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class GalleryItem:
    """One caption; `picture` or, where it could not be shown, the `problem`."""

    name: str
    caption: str
    references: list[str]
    picture: Thumbnail | None
    problem: str | None


@dataclass(frozen=True)
class Gallery:
    """Some of `total` items, or the `problem` that left none."""

    title: str
    items: list[GalleryItem] = field(default_factory=list)
    total: int = 0
    problem: str | None = None


def make_gallery(
    title: str, records: Sequence[Any], roots: Sequence[Path], limit: int, source: str
) -> Gallery:
    """Show at most `limit` of `records`, evenly spaced.

    Args:
        records: mappings with "caption" and, as far as known, "image" (path), "image_id", "references".
        roots: folders that a relative image path may start from, the first that has it wins.
        source: what to call the records in messages.
    """
    captioned = [record for record in records if isinstance(record, Mapping) and "caption" in record]
    if not captioned:
        found = "is empty" if not records else "holds no captions"
        return Gallery(title, problem=f"{source} {found}.")
    count = min(limit, len(captioned))
    chosen = [captioned[index * len(captioned) // count] for index in range(count)]
    return Gallery(title, [_item(record, roots) for record in chosen], len(captioned))


def make_thumbnail(path: Path) -> Thumbnail:
    """Read an image and shrink it, upright, until no side is longer than `THUMBNAIL_SIDE`.

    Raises:
        ImageError: missing, damaged, or not an image.
    """
    image = open_image(path)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    image.info.clear()  # where a photograph was taken does not belong in a report
    content = io.BytesIO()
    image.save(content, "JPEG", quality=82)
    encoded = base64.b64encode(content.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", *image.size)


def _item(record: Mapping[str, Any], roots: Sequence[Path]) -> GalleryItem:
    references = record.get("references") or []
    if not isinstance(references, list | tuple):
        references = [references]
    picture, problem = _picture(record.get("image"), roots)
    return GalleryItem(
        name=_text(record.get("image_id", record.get("image", ""))),
        caption=_text(record["caption"]),
        references=[_text(reference) for reference in references],
        picture=picture,
        problem=problem,
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
