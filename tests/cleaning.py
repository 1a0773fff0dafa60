"""A CapFilt run in this process, without weights: every text is scored by its length."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pyarrow import parquet

from lavis_lite import registry
from lavis_lite.capfilt.inputs import Input, from_shards
from lavis_lite.capfilt.models import Models, build_models
from lavis_lite.capfilt.output import OutputFolder
from lavis_lite.capfilt.run import run_capfilt
from lavis_lite.capfilt.scorers import Asked, BaseScorer, Scores
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.common.logs.progress import Progress
from lavis_lite.datasets.web.shards import list_shards


@registry.register_scorer("letters_for_test")
class Letters(BaseScorer):
    """Counts letters. An image may be turned into anything first, or fail while that is tried."""

    names = ("letters",)
    on_image: Callable[[Image.Image], None] = staticmethod(lambda image: None)
    on_texts: Callable[[Asked], None] = staticmethod(lambda asked: None)

    def prepare(self, image: Image.Image) -> None:
        Letters.on_image(image)

    def score(self, asked: Asked) -> Scores:
        Letters.on_texts(asked)
        return [[(float(len(text)),) for text in texts] for texts in asked.texts]


def models_of(**settings: Any) -> Models:
    values = {"captions_per_image": 0, "scorers": {"letters_for_test": {}}, "rule": "letters"}
    chosen = CapFiltSettings(**{**values, "threshold": 1.0, "batch_size": 3, **settings})
    return build_models(None, lambda image: torch.zeros(1), chosen, torch.device("cpu"))


def clean(
    source: Input | Path, output: Path, text_key: str = "txt", verify: bool = False, **settings: Any
) -> tuple[OutputFolder, list[str]]:
    """Clean shards, a folder of shards, or any input; return the output and the units that failed."""
    given = source if isinstance(source, Input) else from_shards(list_shards([str(source)]), text_key)
    models = models_of(**settings)
    with Progress(1, "capfilt", enabled=False) as progress:
        return run_capfilt(given, models, models.settings, output, progress, verify=verify)


def rows_of(output: OutputFolder) -> list[dict[str, Any]]:
    return parquet.read_table(output.folder / "scores.parquet").to_pylist()


def reasons_of(output: OutputFolder) -> dict[str, str]:
    """Return the reason of each sample that failed, by key."""
    return {row["key"]: row["reason"] for row in rows_of(output) if not row["source"]}


def assert_all_accounted_for(output: OutputFolder, samples: int) -> None:
    """Every sample is kept, filtered or failed, in the markers and in the table."""
    markers = output.done().values()
    assert sum(marker["samples"] for marker in markers) == samples
    for marker in markers:
        assert marker["samples"] == marker["kept"] + marker["filtered"] + marker["failed"]
        assert sum(marker["reasons"].values()) == marker["failed"]
    assert len(reasons_of(output)) == sum(marker["failed"] for marker in markers)


def contents(output: Path) -> Mapping[str, bytes]:
    """Return all that must be the same whoever made it."""
    files = [*output.glob("shards/*"), *output.glob("scores/*"), *output.glob("done/*.json")]
    files += [output / "kept.json", output / "scores.parquet"]
    return {str(file.relative_to(output)): file.read_bytes() for file in files}


def json_of(**values: Any) -> bytes:
    return json.dumps(values).encode()
