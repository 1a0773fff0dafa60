"""Searching a folder of images by text or by image."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_lite.commands.arguments import (
    add_code_arguments,
    add_max_pixels,
    import_user_code,
    non_empty,
    non_negative_int,
    positive_int,
)

if TYPE_CHECKING:
    from lavis_lite.search.image_index import ImageIndex

MODEL, MODEL_TYPE = "blip_image_text_matching", "base"


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite search``."""
    parser = commands.add_parser("search", help="find images of a folder by text or by image")
    add = parser.add_argument
    add("query", nargs="?", type=non_empty, help="text to search for")
    add("--like", type=non_empty, metavar="IMAGE", help="image to search for, instead of a text")
    add("--images", nargs="+", type=non_empty, default=[], metavar="PATH", help="images or folders to add")
    add("--index", type=non_empty, required=True, help="folder that stores the features")
    add("--checkpoint", help="run folder, weights file, URL or hub name; an index remembers its own")
    add("--name", help=f"model of a new index, without a run folder (default: {MODEL})")
    add("--type", dest="model_type", help=f"type of that model (default: {MODEL_TYPE})")
    add("-k", type=positive_int, default=10, help="images to return")
    add("--rerank", type=non_negative_int, default=64, help="images the matching head reads; 0 for none")
    add("--keep-hidden-states", action="store_true", help="re-rank faster, from a larger index")
    add("--json", action="store_true", help="print JSON instead of lines")
    add("--batch-size", type=positive_int, default=32, help="images to embed at once")
    add("--num-workers", type=non_negative_int, default=2, help="processes that read images")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add_max_pixels(parser)
    add_code_arguments(parser)
    parser.set_defaults(execute=_execute)


def _execute(options: argparse.Namespace) -> int:
    from lavis_lite.common.config.schema import ConfigError
    from lavis_lite.common.media.images import open_image

    if (options.query is None) == (options.like is None) and not (options.images and not options.query):
        raise ConfigError("say what to look for: a text, or --like IMAGE (one of the two).")
    like = None if options.like is None else open_image(Path(options.like).expanduser())
    import_user_code(options, options.checkpoint)
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
    if like is not None:
        hits = index.search_by_image(like, options.k)
    elif options.query is not None:
        hits = index.search(options.query, options.k, options.rerank)
    else:
        print(f"{len(index)} images can be searched")
        return 0
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
    name: str | None = None,
    model_type: str | None = None,
    keep_hidden_states: bool = False,
    batch_size: int = 32,
    num_workers: int = 2,
    device: str = "auto",
) -> ImageIndex:
    """Return the `ImageIndex` in `folder`, with the images at `images` added.

    Args:
        folder: of the index; created if there are images to add.
        images: image files and folders.
        checkpoint: run folder, weights file, URL or hub name. None for the one that the index remembers, or
            for the published weights if the index is new.
        name: registered name of the model, if the checkpoint is not a run folder. None for the one that the
            index remembers, or blip_image_text_matching.
        model_type: type of the model. None for the one that the index remembers, or "base".
        keep_hidden_states: see `ImageIndex`.
        batch_size: images to embed at once.
        num_workers: processes that read images.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        ConfigError: a missing path, neither an index nor images for a new one, or a model that cannot
            match images and texts.
        FeatureStoreError: the folder holds the features of another model, something else, or is damaged.
    """
    from lavis_lite.common.config.schema import ConfigError
    from lavis_lite.common.logs.setup import setup_logging
    from lavis_lite.common.media.image_files import find_images
    from lavis_lite.search.feature_head import read_head
    from lavis_lite.search.image_index import ImageIndex

    setup_logging()
    folder = Path(folder).expanduser()
    head = read_head(folder)
    if head is None and not images:
        raise ConfigError(
            f"{folder}: there is no index. {_indexes_near(folder)}Add --images PATH to make a new one."
        )
    files = find_images(images) if images else []
    source = _choose_source(head.source if head is not None else {}, checkpoint, name, model_type)
    is_remembered = head is not None and checkpoint is None
    model, processor = _load(source, device, folder if is_remembered else None)
    index = ImageIndex(folder, model, processor, keep_hidden_states=keep_hidden_states, source=vars(source))
    if files:
        index.add(files, batch_size, num_workers)
    return index


@dataclass(frozen=True)
class ModelSource:
    """The model of an index; an empty checkpoint means the published weights."""

    name: str
    model_type: str | None
    checkpoint: str


def _choose_source(
    remembered: Mapping[str, Any], checkpoint: str | None, name: str | None, model_type: str | None
) -> ModelSource:
    """Return the requested model, or the one that the index remembers."""
    from lavis_lite.commands.model_choice import model_of

    old = {key: str(remembered.get(key) or "") for key in ("name", "model_type", "checkpoint")}
    if checkpoint is None:
        is_same_model = name in (None, old["name"]) and model_type in (None, old["model_type"])
        checkpoint = old["checkpoint"] if is_same_model else ""
    elif Path(checkpoint).expanduser().exists():
        checkpoint = str(Path(checkpoint).expanduser().absolute())
    name, model_type = name or old["name"] or MODEL, model_type or old["model_type"] or MODEL_TYPE
    return ModelSource(*model_of(checkpoint, name, model_type), checkpoint)


def _load(source: ModelSource, device: str, index: Path | None) -> tuple[Any, Any]:
    """Return the model and its image processor.

    Args:
        index: folder of the index that remembers the checkpoint, if any.

    Raises:
        ConfigError: a model that cannot match images and texts, or missing weights of an index.
    """
    from lavis_lite.commands.model_choice import choose_device
    from lavis_lite.common.checkpoint.store import CheckpointError
    from lavis_lite.common.config.schema import ConfigError
    from lavis_lite.common.registry import registry
    from lavis_lite.models import load_model_and_preprocess
    from lavis_lite.models.blip_models.matcher import BlipMatcher

    if not issubclass(registry.get_model_class(source.name), BlipMatcher):
        raise ConfigError(
            f"{source.name} cannot match images and texts; use a retrieval or a matching model ({MODEL})."
        )
    torch_device = choose_device(device)
    try:
        model, processors, _ = load_model_and_preprocess(
            source.name, source.model_type or MODEL_TYPE, True, torch_device, source.checkpoint or None
        )
    except CheckpointError as error:
        if index is None:
            raise
        raise ConfigError(
            f"{index}: the weights that this index was made with cannot be loaded ({error}) "
            "Say with --checkpoint where they are now."
        ) from error
    return model, processors["eval"]


def _indexes_near(folder: Path) -> str:
    """Return a sentence that names the indexes beside `folder`, most similar first ("" if none)."""
    from lavis_lite.common.registry import nearest
    from lavis_lite.search.feature_head import HEAD_FILE

    indexes = sorted(path.parent.name for path in folder.parent.glob(f"*/{HEAD_FILE}"))
    similar = nearest(folder.name, indexes) or indexes[:3]
    return f"Did you mean {' or '.join(str(folder.parent / name) for name in similar)}? " if similar else ""
