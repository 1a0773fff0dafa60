"""Searching a folder of images by text or by image."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavis_lite.commands.pixel_limit import add_max_pixels


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite search``."""
    parser = commands.add_parser(
        "search", help="find images of a folder by text or by image", allow_abbrev=False
    )
    parser.add_argument("query", nargs="?", help="text to look for")
    parser.add_argument(
        "--like", metavar="IMAGE", help="image to look for others like it, in place of a text"
    )
    parser.add_argument(
        "--images", nargs="+", default=[], metavar="PATH", help="image files or folders to add"
    )
    parser.add_argument("--index", required=True, help="folder that keeps the features")
    parser.add_argument("--checkpoint", help="run folder, weights file, URL or hub name")
    parser.add_argument("--name", default="blip_image_text_matching", help="model, without a run folder")
    parser.add_argument("--type", dest="model_type", default="base", help="its type, likewise")
    parser.add_argument("-k", type=int, default=10, help="images to return")
    parser.add_argument("--rerank", type=int, default=64, help="images the matching head reads; 0 for none")
    parser.add_argument(
        "--keep-hidden-states", action="store_true", help="re-rank faster, from a larger index"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of lines")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--device", default="auto")
    add_max_pixels(parser)
    parser.set_defaults(execute=_execute)


def _execute(options: argparse.Namespace) -> int:
    from lavis_lite.common.schema import ConfigError

    if (options.query is None) == (options.like is None) and not (options.images and not options.query):
        raise ConfigError("say what to look for: a text, or --like IMAGE (one of the two).")
    index = open_index(
        options.index,
        options.images,
        checkpoint=options.checkpoint,
        name=options.name,
        model_type=options.model_type,
        keep_hidden_states=options.keep_hidden_states,
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        device=options.device,
    )
    if options.query is None and options.like is None:
        print(f"{len(index)} images can be searched")
        return 0
    hits = (
        index.search(options.query, options.k, options.rerank)
        if options.like is None
        else index.search_by_image(options.like, options.k)
    )
    if options.json:
        print(json.dumps([{**vars(hit), "path": str(hit.path)} for hit in hits], indent=1))
        return 0
    for hit in hits:
        match = "" if hit.match_probability is None else f"  match {hit.match_probability:.3f}"
        print(f"{hit.score:8.3f}  similarity {hit.similarity:.3f}{match}  {hit.path}")
    return 0


def open_index(
    folder: str | Path,
    images: Sequence[str | Path] = (),
    *,
    checkpoint: str | None = None,
    name: str = "blip_image_text_matching",
    model_type: str = "base",
    keep_hidden_states: bool = False,
    batch_size: int = 32,
    num_workers: int = 2,
    device: str = "auto",
) -> Any:
    """Return the `ImageIndex` in `folder`, with the images at `images` added.

    Raises:
        ConfigError: a path that is not there, or a run of a model that cannot match images and texts.
        FeatureStoreError: the folder holds the features of another model.
    """
    from lavis_lite.common import distributed
    from lavis_lite.common.image_files import find_images
    from lavis_lite.common.logging import setup_logging
    from lavis_lite.common.run_folder import RunFolder
    from lavis_lite.common.schema import ConfigError
    from lavis_lite.models import load_model_and_preprocess
    from lavis_lite.models.blip_models.matcher import BlipMatcher
    from lavis_lite.models.search import ImageIndex

    setup_logging()
    if checkpoint and (run := RunFolder.at(checkpoint)) is not None:
        name = run.config()["model"]["arch"]
        model_type = run.config()["model"].get("model_type")
    model, vis_processors, _ = load_model_and_preprocess(
        name, model_type, is_eval=True, device=distributed.pick_device(device), checkpoint=checkpoint or None
    )
    if not isinstance(model, BlipMatcher):
        raise ConfigError(f"{name} cannot match images and texts; use a retrieval or a matching model.")
    index = ImageIndex(folder, model, vis_processors["eval"], keep_hidden_states=keep_hidden_states)
    if images:
        index.add(find_images(images), batch_size, num_workers)
    return index
