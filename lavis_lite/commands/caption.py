"""Captioning image files with a trained model."""

from __future__ import annotations

import csv
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from torch.utils.data import DataLoader, Dataset

from lavis_lite.common import distributed
from lavis_lite.common.images import ImageError, open_image
from lavis_lite.common.progress import Progress
from lavis_lite.common.run_folder import RunFolder
from lavis_lite.common.schema import ConfigError

logger = logging.getLogger(__name__)
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm"}


def caption_files(
    paths: Sequence[str],
    checkpoint: str,
    *,
    name: str = "blip_caption",
    model_type: str = "base_coco",
    batch_size: int = 32,
    num_workers: int = 2,
    device: str = "auto",
    num_captions: int = 1,
    **generation: Any,
) -> Iterator[dict[str, Any]]:
    """Yield ``{"image", "caption"}`` for each image file in `paths` and below the folders in it.

    An image that cannot be read yields ``{"image", "error"}``; none is left out silently. With
    several captions an image, "caption" is a list.

    Args:
        checkpoint: a run folder, which brings model and generation settings along, or a weights
            file or URL for the model `name` of type `model_type`; "" for its published weights.
        generation: what `BlipCaption.generate` takes.

    Raises:
        ConfigError: no image at `paths`.
    """
    from lavis_lite.models import load_model_and_preprocess

    files = find_images(paths)
    if checkpoint and (run := RunFolder.at(checkpoint)) is not None:
        name = run.config()["model"]["arch"]
        model_type = run.config()["model"].get("model_type")
    picked = distributed.pick_device(device)
    model, vis_processors, _ = load_model_and_preprocess(
        name, model_type, is_eval=True, device=picked, checkpoint=checkpoint or None
    )
    loader = DataLoader(
        _ImageFiles(files, vis_processors["eval"]),
        batch_size=batch_size,
        num_workers=min(num_workers, max(0, len(files) // batch_size)),
        collate_fn=list,
    )
    with Progress(len(files), "caption") as progress, torch.inference_mode():
        for items in loader:
            yield from _caption_batch(model, items, picked, num_captions, generation)
            progress.advance(len(items))


def find_images(paths: Sequence[str]) -> list[Path]:
    """Return the image files that `paths` name, folders searched through, in a stable order.

    Raises:
        ConfigError: a path that is not there, or no image at all.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        elif path.is_file():
            files.append(path)
        else:
            raise ConfigError(f"{path}: no such file or folder.")
    if not files:
        raise ConfigError(
            f"{', '.join(map(str, paths))}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})."
        )
    return files


class _ImageFiles(Dataset):
    """Image tensors, or the reason why there is none."""

    def __init__(self, files: Sequence[Path], processor: Any) -> None:
        self.files = files
        self.processor = processor

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor | None, str]:
        path = self.files[index]
        try:
            return str(path), self.processor(open_image(path)), ""
        except (ImageError, OSError) as error:
            return str(path), None, str(error)


def _caption_batch(
    model: Any,
    items: list[tuple[str, torch.Tensor | None, str]],
    device: Any,
    num_captions: int,
    generation: dict,
) -> Iterator[dict[str, Any]]:
    images = [image for _, image, _ in items if image is not None]
    captions: Iterator[str] = iter(())
    if images:
        samples = {"image": torch.stack(images).to(device)}
        captions = iter(model.generate(samples, num_captions=num_captions, **generation))
    for path, image, error in items:
        if image is None:
            logger.warning("%s", error)
            yield {"image": path, "error": error}
        elif num_captions == 1:
            yield {"image": path, "caption": next(captions)}
        else:
            yield {"image": path, "caption": [next(captions) for _ in range(num_captions)]}


def write_captions(records: Iterator[dict[str, Any]], output: str | None, form: str) -> int:
    """Write `records` as "json" or "csv" to `output` or standard output; return how many failed."""
    if output is None:
        return _write(records, sys.stdout, form)
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        return _write(records, file, form)


def _write(records: Iterator[dict[str, Any]], file: TextIO, form: str) -> int:
    failed = 0
    if form == "csv":
        writer = csv.DictWriter(file, fieldnames=["image", "caption", "error"], restval="")
        writer.writeheader()
        for record in records:
            failed += "error" in record
            captions = record.get("caption")
            for caption in captions if isinstance(captions, list) else [captions or ""]:
                writer.writerow({**record, "caption": caption})
        return failed
    everything = list(records)
    json.dump(everything, file, ensure_ascii=False, indent=1)
    file.write("\n")
    return sum("error" in record for record in everything)
