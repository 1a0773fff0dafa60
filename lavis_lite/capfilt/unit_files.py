"""The two files of a finished unit: a tar of the samples that keep a text, and a table of all texts."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lavis_lite.capfilt.names import output_keys
from lavis_lite.capfilt.samples import Sample
from lavis_lite.common.files import atomic_writer, printable


def with_output_keys(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples under names that are safe and unique; json keeps the others as "capfilt_key"."""
    names = output_keys([sample.key for sample in samples])
    return [
        sample
        if name == sample.key
        else replace(sample, key=name, about={**sample.about, "capfilt_key": sample.key})
        for sample, name in zip(samples, names, strict=True)
    ]


def of_each_text(sample: Sample) -> Iterator[Sample]:
    """Yield a sample for each text that is kept, with the others as they were judged."""
    for number, text in enumerate(sample.kept):
        others = [candidate for candidate in sample.candidates if not candidate.kept]
        yield replace(sample, key=f"{sample.key}-{number}", candidates=[text, *others])


def write_tar(samples: Sequence[Sample], path: Path) -> None:
    """Write the samples, each of which keeps a text; the same samples give the same bytes."""
    with atomic_writer(path) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for sample in samples:
            for suffix, member in sorted(_members(sample).items()):
                info = tarfile.TarInfo(f"{sample.key}.{suffix}")
                info.size = len(member)
                tar.addfile(info, io.BytesIO(member))


def _members(sample: Sample) -> dict[str, bytes]:
    images = {suffix: member for suffix, member in sample.members.items() if suffix not in ("json", "txt")}
    about = {
        **sample.about,
        "texts": [candidate.text for candidate in sample.kept],
        "capfilt": [candidate.flat() for candidate in sample.candidates],
    }
    # In JSON, half of a surrogate pair and its escape are the same text.
    encoded = json.dumps(about, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return {**images, "json": encoded, "txt": sample.kept[0].text.encode()}


def write_table(samples: Sequence[Sample], scores: Sequence[str], path: Path) -> None:
    """Write every text of every sample, with its scores and what was decided, as Parquet."""
    from pyarrow import Table, float64, parquet, schema, string
    from pyarrow import bool_ as boolean

    columns = schema(
        [
            ("shard", string()),
            ("key", string()),
            ("url", string()),
            ("source", string()),
            ("text", string()),
            *((name, float64()) for name in scores),
            ("kept", boolean()),
            ("reason", string()),
        ]
    )
    table = Table.from_pylist(list(_rows(samples)), schema=columns)
    with atomic_writer(path) as file:
        parquet.write_table(table, file)


def _rows(samples: Sequence[Sample]) -> Iterator[dict[str, Any]]:
    for sample in samples:
        url = sample.about.get("url")
        if isinstance(url, str) and sample.failure:
            url = printable(url)  # it may be what the sample failed for
        named = {
            "shard": str(sample.about.get("capfilt_shard", "")),
            "key": sample.key,
            "url": url if isinstance(url, str) else None,
        }
        if sample.failure:
            yield {**named, "source": "", "kept": False, "reason": printable(sample.failure)}
        for candidate in sample.candidates:
            yield {**named, **candidate.flat()}


def size_and_digest(path: Path) -> dict[str, Any]:
    """Return what tells a file from a damaged one: {"bytes": ..., "digest": ...}."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while block := file.read(1 << 20):
            digest.update(block)
    return {"bytes": size, "digest": digest.hexdigest()}
