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

from lavis_lite.common import distributed
from lavis_lite.common.image_files import ImageFile, find_images, read_images
from lavis_lite.common.progress import Progress
from lavis_lite.common.run_folder import RunFolder

logger = logging.getLogger(__name__)


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
        name, model_type = run.arch()
    picked = distributed.pick_device(device)
    model, vis_processors, _ = load_model_and_preprocess(
        name, model_type, is_eval=True, device=picked, checkpoint=checkpoint or None
    )
    batches = read_images(files, vis_processors["eval"], batch_size, num_workers)
    with Progress(len(files), "caption") as progress, torch.inference_mode():
        for items in batches:
            yield from _caption_batch(model, items, picked, num_captions, generation)
            progress.advance(len(items))


def _caption_batch(
    model: Any,
    items: list[ImageFile],
    device: Any,
    num_captions: int,
    generation: dict,
) -> Iterator[dict[str, Any]]:
    images = [item.image for item in items if item.image is not None]
    captions: Iterator[str] = iter(())
    if images:
        samples = {"image": torch.stack(images).to(device)}
        captions = iter(model.generate(samples, num_captions=num_captions, **generation))
    for path, image, error in items:
        if image is None:
            logger.warning("%s", error)
            yield {"image": str(path), "error": error}
        elif num_captions == 1:
            yield {"image": str(path), "caption": next(captions)}
        else:
            yield {"image": str(path), "caption": [next(captions) for _ in range(num_captions)]}


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
