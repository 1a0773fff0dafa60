"""Converting weights to the layouts of other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_lite.commands.arguments import add_code_arguments, import_user_code

if TYPE_CHECKING:
    from lavis_lite.models.weights.adapters.transformers import Kind


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite convert``."""
    parser = commands.add_parser(
        "convert", help="write weights for transformers, or as Salesforce's files", allow_abbrev=False
    )
    add = parser.add_argument
    add("checkpoint", help="run folder, weights file, URL, hub name or transformers folder")
    add("--to", choices=("transformers", "salesforce"), required=True, help="layout to write")
    add("--output", "-o", required=True, help="folder (transformers) or .pth file (salesforce)")
    add("--name", help="name of the model, unless the checkpoint is a run folder")
    add("--type", dest="model_type", help="type of the model, unless the checkpoint is a run folder")
    add("--kind", choices=("caption", "vqa", "itm"), help="what to write of a pretrained model")
    add("--ptr-queue", action="store_true", help="name the queue's pointer as BLIP's code does")
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
    kind: Kind | None = None,
    pointer: str = "queue_ptr",
) -> Path:
    """Write the weights at `checkpoint` in another layout; return the path of the result.

    Args:
        to: "transformers" for a folder with config, weights and processor, "salesforce" for a ``.pth`` file.
        output: the folder or file to write.
        name: registered name of the model; a run folder records its own.
        model_type: type of the model; a run folder records its own.
        kind: "caption", "vqa" or "itm", for transformers, if the model could be several.
        pointer: name of the queues' pointer in Salesforce's layout.

    Raises:
        ConfigError: the model is not named, or is not a BLIP model.
        ValueError: the layout cannot represent the model.
    """
    from lavis_lite.common.config.schema import ConfigError
    from lavis_lite.common.run_folder import RunFolder
    from lavis_lite.models import load_model
    from lavis_lite.models.blip_models.blip import BlipBase

    run = RunFolder.at(checkpoint)
    if run is not None:
        name, model_type = run.arch()
    if name is None or model_type is None:
        raise ConfigError(
            f"{checkpoint} is not a run folder, so name its model (for example --name blip_caption --type "
            "base_coco); `lavis-lite models` lists them."
        )
    model = load_model(name, model_type, checkpoint=checkpoint)
    if not isinstance(model, BlipBase):
        raise ConfigError(f"{name} is not a BLIP model; there is no other layout for it.")
    if to == "transformers":
        return model.save_transformers(output, kind)
    return model.save_salesforce(output, pointer)
