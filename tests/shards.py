"""Tar shards that the tests write: whole, cut off, and with things in them that must not be."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image


def jpeg(value: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (24, 24), (value % 256, 128, 64)).save(content, "JPEG")
    return content.getvalue()


def write_tar(path: Path, samples: Sequence[Mapping[str, bytes]]) -> Path:
    """Write samples as {"key": ..., suffix: bytes}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for sample in samples:
            for suffix, content in sample.items():
                if suffix != "key":
                    info = tarfile.TarInfo(f"{sample['key']}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return path


def write_shards(folder: Path, counts: Sequence[int]) -> Path:
    """Write one shard for each count; keys are numbered through, texts name the keys."""
    number = 0
    for index, count in enumerate(counts):
        samples = []
        for _ in range(count):
            key = f"{number:06d}"
            about = json.dumps({"caption": f"caption {key}", "texts": [f"one {key}", f"two {key}"]})
            samples.append(
                {"key": key, "jpg": jpeg(number), "txt": f"caption {key}".encode(), "json": about.encode()}
            )
            number += 1
        write_tar(folder / f"shard-{index:03d}.tar", samples)
    return folder
