"""A page of samples of a data set: the original images, what training sees of them, and their texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from lavis_lite.report.gallery import Thumbnail, make_thumbnail, shrink
from lavis_lite.report.page import write_page


def write_data_page(dataset: Any, title: str, path: Path, count: int = 50) -> Path:
    """Write a page of `count` samples, evenly spaced, as one file, and return its path.

    Args:
        dataset: map-style, with `annotations` and `image_root` if its originals are to be shown.
        title: heading.
        path: the file.
        count: how many samples at most.
    """
    total = len(dataset)
    samples = [_sample(dataset, index * total // min(count, total)) for index in range(min(count, total))]
    return write_page("data_page.html", path, title=title, total=total, samples=samples)


def _sample(dataset: Any, index: int) -> dict[str, Any]:
    before, error = _originals(dataset, index)
    item: dict[str, Any] = {}
    try:
        item = dataset[index]
    except (OSError, ValueError) as problem:
        error = str(problem)
    return {
        "number": index,
        "before": before,
        "after": [picture for value in item.values() for picture in _pictures(value)],
        "facts": [
            (key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
            for key, value in item.items()
            if not isinstance(value, Tensor | Image.Image)
        ],
        "error": error,
    }


def _originals(dataset: Any, index: int) -> tuple[list[Thumbnail], str | None]:
    annotations, root = getattr(dataset, "annotations", None), getattr(dataset, "image_root", None)
    if annotations is None or root is None:
        return [], None
    names = annotations[index].get("images") or [annotations[index].get("image")]
    try:
        return [make_thumbnail(root / name) for name in names if isinstance(name, str)], None
    except (OSError, ValueError) as error:
        return [], str(error)


def _pictures(value: Any) -> list[Thumbnail]:
    """Return what an image tensor (3, height, width), or a video (3, frames, height, width), looks like."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim not in (3, 4):
        return []
    frames = [value] if value.ndim == 3 else list(value.unbind(1))
    return [_picture(frame) for frame in frames if frame.shape[0] == 3]


def _picture(image: Tensor) -> Thumbnail:
    # stretched to the visible range, whatever the normalization
    low, high = image.amin(), image.amax()
    pixels = ((image - low) / (high - low).clamp(min=1e-6) * 255).byte().permute(1, 2, 0)
    return shrink(Image.fromarray(pixels.contiguous().numpy()))
