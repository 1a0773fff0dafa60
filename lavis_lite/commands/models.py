"""The table of models: names, types, sizes, and where their weights come from."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lavis_lite.commands.arguments import add_import_argument

if TYPE_CHECKING:
    from lavis_lite.models import BaseModel


@dataclass(frozen=True)
class ModelRow:
    """One type of one model.

    Attributes:
        parameters: number of weights; None for a model that cannot be built without its own files.
        sources: addresses of its weights, in the order in which they are tried.
    """

    name: str
    model_type: str
    parameters: int | None
    sources: tuple[str, ...]


def add_parser(commands: Any) -> None:
    """Add ``lavis-lite models``."""
    parser = commands.add_parser("models", help="list models, their sizes and weights", allow_abbrev=False)
    add_import_argument(parser)
    parser.set_defaults(execute=_execute)


def _execute(options: argparse.Namespace) -> int:
    from lavis_lite.common.config.user_modules import import_modules

    import_modules(options.imports)
    print(format_table(list(list_models())))
    return 0


def list_models() -> Iterator[ModelRow]:
    """Yield every type of every registered model, in the order of names."""
    from lavis_lite.common.config.layering import model_defaults
    from lavis_lite.common.registry import registry
    from lavis_lite.models import model_zoo

    for name, types in model_zoo:
        model_class = registry.get_model_class(name)
        for model_type in types:
            settings = model_defaults(model_class, model_type)["model"]
            yield ModelRow(name, model_type, _count_parameters(model_class, settings), _sources(settings))


def _count_parameters(model_class: type[BaseModel], settings: dict[str, Any]) -> int | None:
    """Build the model without memory, weights or network, and count its parameters."""
    from lavis_lite.models.weights.zoo import build_on_meta

    overrides: dict[str, Any] = {"load_finetuned": False, "load_pretrained": False}
    defaults = vars(model_class.Config())
    if "num_classes" in defaults and not settings.get("num_classes", defaults["num_classes"]):
        overrides["num_classes"] = 2  # set by the user; the number of classes hardly changes the size
    if "tokenizer" in defaults:
        overrides["tokenizer"] = "shapes"  # not needed: published sizes name the size of their vocabulary
        if not isinstance(settings.get("med_config"), dict):
            overrides["med_config"] = _with_published_vocabulary(settings.get("med_config"))
    try:
        model = build_on_meta(model_class, {**settings, **overrides})
    except (OSError, ValueError):
        return None
    return sum(parameter.numel() for parameter in model.parameters())


def _with_published_vocabulary(name: str | None) -> dict[str, Any]:
    from lavis_lite.models.blip_models.blip import CONFIGS
    from lavis_lite.models.weights.tokenizer import PUBLISHED_VOCABULARY

    content = json.loads((CONFIGS / f"{name or 'med_config'}.json").read_text(encoding="utf-8"))
    return {**content, "vocab_size": PUBLISHED_VOCABULARY}


def _sources(settings: dict[str, Any]) -> tuple[str, ...]:
    from lavis_lite.models.weights.adapters.published import same_weights

    for switch, address in (("load_finetuned", "finetuned"), ("load_pretrained", "pretrained")):
        if settings.get(switch, True) and settings.get(address):
            return (settings[address], *same_weights(settings[address]))
    return ()


def format_table(rows: list[ModelRow]) -> str:
    """Return the rows as aligned text."""
    cells = [("name", "type", "parameters", "weights")]
    for row in rows:
        size = "?" if row.parameters is None else f"{row.parameters / 1e6:.1f} M"
        first, *others = row.sources or ("none (trained from scratch)",)
        cells.append((row.name, row.model_type, size, first))
        cells.extend(("", "", "", f"or {source}") for source in others)
    widths = [max(len(line[column]) for line in cells) for column in range(3)]
    return "\n".join(
        f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {size:>{widths[2]}}  {source}".rstrip()
        for name, kind, size, source in cells
    )
