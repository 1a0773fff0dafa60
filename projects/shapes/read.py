"""Read back what a drawn data set shows."""

from __future__ import annotations

import json
from pathlib import Path

from .scene import Scene


def read_scenes(folder: Path, split: str) -> dict[str, Scene]:
    """Return image name -> scene of a split that `write_shapes_caption` wrote into `folder`."""
    lines = (folder / "scenes" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return {record["image"]: Scene.from_json(record["scene"]) for record in records}
