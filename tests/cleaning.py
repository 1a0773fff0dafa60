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
from lavis_lite.capfilt.captioner import Captioner
from lavis_lite.capfilt.job import Job
from lavis_lite.capfilt.output_reader import OutputReader
from lavis_lite.capfilt.output_writer import OutputWriter
from lavis_lite.capfilt.scorers import BaseScorer, ScoreRequest, Scorers, Scores
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.capfilt.sources import Input, from_shards
from lavis_lite.capfilt.workers import run_job
from lavis_lite.datasets.web.shards import list_shards


@registry.register_scorer("letters_for_test")
class Letters(BaseScorer):
    """Counts letters. An image may be turned into anything first, or fail while that is tried."""

    names = ("letters",)
    on_image: Callable[[Image.Image], None] = staticmethod(lambda image: None)
    on_texts: Callable[[ScoreRequest], None] = staticmethod(lambda request: None)

    def prepare(self, image: Image.Image) -> None:
        Letters.on_image(image)

    def score(self, request: ScoreRequest) -> Scores:
        Letters.on_texts(request)
        return [[(float(len(text)),) for text in texts] for texts in request.texts]


def settings_of(**settings: Any) -> CapFiltSettings:
    values = {"captions_per_image": 0, "scorers": {"letters_for_test": {}}, "rule": "letters"}
    return CapFiltSettings(**{**values, "threshold": 1.0, "batch_size": 3, **settings})


def job_of(
    source: Input | Path,
    output: Path,
    settings: CapFiltSettings,
    captioner: Any = None,
    text_key: str = "txt",
    verify: bool = False,
) -> Job:
    """Return a job for shards, a folder of shards, or any input, without a GPU and without an image."""
    crawl = source if isinstance(source, Input) else from_shards(list_shards([str(source)]), text_key)
    cpu = torch.device("cpu")
    captioner = Captioner(captioner, lambda image: torch.zeros(1), settings, cpu)
    return Job(crawl, captioner, Scorers(settings, cpu), settings, output, verify)


def clean(
    source: Input | Path, output: Path, text_key: str = "txt", verify: bool = False, **settings: Any
) -> tuple[OutputWriter, list[str]]:
    """Clean shards, a folder of shards, or any input; return the output and the units that failed."""
    job = job_of(source, output, settings_of(**settings), text_key=text_key, verify=verify)
    return run_job(job, show=False)


def rows_of(output: OutputReader) -> list[dict[str, Any]]:
    return parquet.read_table(output.folder / "scores.parquet").to_pylist()


def reasons_of(output: OutputReader) -> dict[str, str]:
    """Return the reason of each sample that failed, by key."""
    return {row["key"]: row["reason"] for row in rows_of(output) if not row["source"]}


def assert_all_accounted_for(output: OutputReader, samples: int) -> None:
    """Every sample is kept, filtered or failed, in the markers and in the table."""
    markers = output.markers().values()
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
