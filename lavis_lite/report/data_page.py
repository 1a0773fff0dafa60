"""A page of samples of a data set: images as they are, as training sees them, and their texts."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from lavis_lite.report.gallery import Thumbnail, make_thumbnail
from lavis_lite.report.page import write_page

SIDE = 192


def write_data_page(dataset: Any, title: str, path: Path, count: int = 50) -> Path:
    """Write a page of `count` samples, evenly spaced, that needs no other file; return its path.

    Args:
        dataset: map-style, with `annotations` and `image_root` where its originals are to be shown.
    """
    total = len(dataset)
    chosen = [index * total // min(count, total) for index in range(min(count, total))]
    samples = [_sample(dataset, index) for index in chosen]
    return write_page("data_page.html", path, title=title, total=total, samples=samples)


def _sample(dataset: Any, index: int) -> dict[str, Any]:
    before, problem = _originals(dataset, index)
    try:
        item = dataset[index]
    except (OSError, ValueError) as error:
        return {"number": index, "before": before, "after": [], "facts": [], "problem": str(error)}
    return {
        "number": index,
        "before": before,
        "after": [picture for value in item.values() for picture in _pictures(value)],
        "facts": [
            (key, _text(value)) for key, value in item.items() if not isinstance(value, Tensor | Image.Image)
        ],
        "problem": problem,
    }


def _originals(dataset: Any, index: int) -> tuple[list[Thumbnail], str | None]:
    annotations, root = getattr(dataset, "annotations", None), getattr(dataset, "image_root", None)
    if annotations is None or root is None:
        return [], None
    annotation: Mapping[str, Any] = annotations[index]
    names = annotation.get("images") or [annotation.get("image")]
    try:
        return [make_thumbnail(root / name) for name in names if isinstance(name, str)], None
    except (OSError, ValueError) as error:
        return [], str(error)


def _pictures(value: Any) -> list[Thumbnail]:
    """Return what a tensor of an image (3, height, width), or of frames (3, frames, ...), looks like."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim not in (3, 4):
        return []
    frames = [value] if value.ndim == 3 else list(value.unbind(1))
    return [_picture(frame) for frame in frames if frame.shape[0] == 3]


def _picture(image: Tensor) -> Thumbnail:
    # the colours are stretched back to what can be shown, whatever normalised them
    low, high = image.amin(), image.amax()
    pixels = ((image - low) / (high - low).clamp(min=1e-6) * 255).byte().permute(1, 2, 0)
    picture = Image.fromarray(pixels.contiguous().numpy())
    picture.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    encoded = base64.b64encode(content.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", *picture.size)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
