"""Weights in the layouts of other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lavis_lite.commands.arguments import add_code_arguments, import_user_code


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite convert``."""
    parser = commands.add_parser(
        "convert", help="write weights for transformers, or as Salesforce's files", allow_abbrev=False
    )
    parser.add_argument("checkpoint", help="run folder, weights file, URL, hub name or transformers folder")
    parser.add_argument("--to", choices=("transformers", "salesforce"), required=True)
    parser.add_argument(
        "--output", "-o", required=True, help="folder (transformers) or .pth file (salesforce)"
    )
    parser.add_argument("--name", help="model, where the checkpoint is no run folder")
    parser.add_argument("--type", dest="model_type", help="its type, likewise")
    parser.add_argument(
        "--kind", choices=("caption", "vqa", "itm"), help="what to write of a pretrained model"
    )
    parser.add_argument(
        "--ptr-queue", action="store_true", help="name the queue's pointer as BLIP's code does"
    )
    add_code_arguments(parser)
    parser.set_defaults(execute=_execute)


def _execute(options: argparse.Namespace) -> int:
    import_user_code(options, options.checkpoint)
    written = convert(
        options.checkpoint,
        options.to,
        options.output,
        name=options.name,
        model_type=options.model_type,
        kind=options.kind,
        pointer="ptr_queue" if options.ptr_queue else "queue_ptr",
    )
    print(written)
    return 0


def convert(
    checkpoint: str | Path,
    to: str,
    output: str | Path,
    *,
    name: str | None = None,
    model_type: str | None = None,
    kind: str | None = None,
    pointer: str = "queue_ptr",
) -> Path:
    """Write the weights at `checkpoint` in another layout; return where they lie.

    Args:
        to: "transformers" for a folder with config, weights and processor, "salesforce" for a ``.pth`` file.
        name, model_type: the model; a run folder says it itself.
        kind: "caption", "vqa" or "itm", for transformers, where the model could be several.

    Raises:
        ConfigError: the model is not named, or is none of ours.
        ValueError: the layout has no place for the model.
    """
    from lavis_lite.common.config.schema import ConfigError
    from lavis_lite.common.run_folder import RunFolder
    from lavis_lite.models import load_model

    run = RunFolder.at(checkpoint)
    if run is not None:
        name, model_type = run.arch()
    elif name is None or model_type is None:
        raise ConfigError(
            f"{checkpoint} is no run folder, so name its model: --name blip_caption --type base_coco, for "
            "one; `lavis-lite models` lists them."
        )
    model = load_model(name, model_type, checkpoint=checkpoint)
    if not hasattr(model, "save_transformers"):
        raise ConfigError(f"{name} is no BLIP model; it has no other layout.")
    if to == "transformers":
        return model.save_transformers(output, kind)
    return model.save_salesforce(output, pointer)
