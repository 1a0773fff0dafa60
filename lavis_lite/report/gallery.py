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
    """What was said of a picture, or found for a text; where it could not be shown, the `problem`.

    Attributes:
        caption: what the model said: a caption, an answer, a class, the texts it found.
        more: further pictures, of a text that looked for some, the best first.
    """

    name: str
    caption: str
    references: list[str]
    picture: Thumbnail | None
    problem: str | None
    more: list[Thumbnail] = field(default_factory=list)


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
        records: what a task recorded of each sample: mappings with "caption", "answer", "prediction" or
            "found", and, as far as known, "image_path" (or "image"), "image_id", "references".
        roots: folders that a relative image path may start from, the first that has it wins.
        source: what to call the records in messages.
    """
    captioned = [record for record in records if isinstance(record, Mapping) and _SAID & record.keys()]
    if not captioned:
        found = "is empty" if not records else "holds nothing to show"
        return Gallery(title, problem=f"{source} {found}.")
    count = min(limit, len(captioned))
    chosen = [captioned[index * len(captioned) // count] for index in range(count)]
    return Gallery(title, [_item(record, roots) for record in chosen], len(captioned))


def make_thumbnail(path: Path) -> Thumbnail:
    """Read an image and shrink it, upright, until no side is longer than `THUMBNAIL_SIDE`.

    Raises:
        ImageError: missing, damaged, or not an image.
    """
    return shrink(open_image(path))


def shrink(image: Image.Image) -> Thumbnail:
    """Return an image so small that no side is longer than `THUMBNAIL_SIDE`; it is changed."""
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    image.info.clear()  # where a photograph was taken does not belong in a report
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
    references = record.get("references") or []
    if not isinstance(references, list | tuple):
        references = [references]
    if record.get("query") == "text":
        return _found_pictures(record, roots)
    picture, problem = _picture(record.get("image_path") or record.get("image"), roots)
    name, said = _told(record)
    if "label" in record and not references:
        references = [f"class {record['label']}"]
    return GalleryItem(
        name=_text(name),
        caption=_text(said),
        references=list(dict.fromkeys(_text(reference) for reference in references)),
        picture=picture,
        problem=problem,
    )


def _told(record: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what was asked, or the name of the picture, and what the model said."""
    name = record.get("image_id", record.get("image", record.get("image_path", "")))
    if "caption" in record:
        return name, record["caption"]
    if "answer" in record:
        return record.get("question", name), record["answer"]
    if "found" in record:
        return name, "\n".join(f"{hit['score']:.2f}  {hit['text']}" for hit in record["found"])
    return record.get("text_input") or name, f"class {record['prediction']}"


def _found_pictures(record: Mapping[str, Any], roots: Sequence[Path]) -> GalleryItem:
    """Return a text with the pictures that it found, the best one large."""
    found = [_picture(hit.get("image_path"), roots) for hit in record["found"]]
    pictures = [picture for picture, _ in found if picture is not None]
    places = [place for place, hit in enumerate(record["found"], start=1) if hit.get("right")]
    return GalleryItem(
        name=f"its picture is at place {int(record['rank']) + 1}" if not places else "",
        caption=_text(record["text"]),
        references=[f"its picture is at place {place}" for place in places],
        picture=pictures[0] if pictures else None,
        problem=found[0][1] if found and not pictures else None,
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
