"""What CapFilt leaves of a shard: a tar, a table, a marker. All of them, or none is seen.

=============================  ===============================================================
``shards/<name>.tar``          the samples that keep a text: image bytes as they were, ``json``
``scores/<name>.parquet``      every text of every sample, with scores and decision
``done/<name>.json``           counts, digests of the input and of models and settings; written last
=============================  ===============================================================
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

from lavis_lite.capfilt.select import Candidate
from lavis_lite.capfilt.tables import write_whole
from lavis_lite.common.files import atomic_writer, write_json


class CapFiltError(ValueError):
    """Output that does not belong to this run, or input that cannot be used; the message says which."""


@dataclass(frozen=True)
class Sample:
    """A sample on its way through.

    Attributes:
        key: its name in the shard.
        members: the bytes of its image and whatever else it holds, by suffix.
        about: its json.
        candidates: its texts; none where it failed.
        failure: why it could not be used; empty where it could.
    """

    key: str
    members: Mapping[str, bytes]
    about: Mapping[str, Any]
    candidates: Sequence[Candidate] = ()
    failure: str = ""

    @property
    def kept(self) -> list[Candidate]:
        """The texts that it keeps."""
        return [candidate for candidate in self.candidates if candidate.kept]


class OutputFolder:
    """The output of all shards, and which of them are done.

    Args:
        identity: all that the output depends on; a folder that was begun with something else is refused.

    Raises:
        CapFiltError: the folder holds the output of other settings.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        self.folder = Path(folder).expanduser()
        self.identity = json.loads(json.dumps(identity))
        self.made_with = hashlib.blake2b(json.dumps(identity).encode(), digest_size=16).hexdigest()
        for name in ("shards", "scores", "done", "failed", "times"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._check_identity()

    def _check_identity(self) -> None:
        file = self.folder / "settings.json"
        if not file.is_file():
            write_json(self.identity, file)
            return
        held = json.loads(file.read_text(encoding="utf-8"))
        differs = [
            f"{key} was {held.get(key)!r} and is now {self.identity.get(key)!r}"
            for key in sorted(held.keys() | self.identity.keys())
            if held.get(key) != self.identity.get(key)
        ]
        if differs:
            raise CapFiltError(
                f"{self.folder}: was begun with other settings ({'; '.join(differs)}). Give another output "
                "folder, or the same settings."
            )

    def is_done(self, name: str) -> bool:
        """Whether all of a shard's output is there."""
        return (self.folder / "done" / f"{name}.json").is_file()

    def done(self) -> dict[str, dict[str, Any]]:
        """Return the marker of each shard that is done, by name."""
        files = sorted((self.folder / "done").glob("*.json"))
        return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}

    def commit(
        self, name: str, samples: Sequence[Sample], damage: Sequence[str] = (), scores: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Write a shard's output, the marker last; return what the marker says.

        Nobody else may be writing this shard.

        Args:
            damage: what was found wrong with the shard.
            scores: names of the scores that a text may have.
        """
        self._discard_leftovers(name)
        kept = [sample for sample in samples if sample.kept]
        failed = sum(bool(sample.failure) for sample in samples)
        each_text = self.identity.get("settings", {}).get("sample_per") == "text"
        written = [part for sample in kept for part in _of_each_text(sample)] if each_text else kept
        self._write(self.folder / "shards" / f"{name}.tar", _tar(written))
        self._write(self.folder / "scores" / f"{name}.parquet", _table(samples, scores))
        counts = {
            "samples": len(samples),
            "kept": len(kept),
            "filtered": len(samples) - len(kept) - failed,
            "failed": failed,
            "written": len(written),
            "damage": list(damage),
            "input": _digest_of(samples),
            "made_with": self.made_with,
        }
        write_json(counts, self.folder / "done" / f"{name}.json")
        return counts

    def note_times(self, name: str, record: Mapping[str, Any]) -> None:
        """Keep how long a unit took, apart from what must be the same each time."""
        write_json(dict(record), self.folder / "times" / f"{name}.json")

    def times(self) -> list[dict[str, Any]]:
        """Return how long each unit took."""
        files = sorted((self.folder / "times").glob("*.json"))
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]

    def noise_ratios(self) -> dict[str, float]:
        """Return what share of each source's texts was dropped: "noise_web", "noise_synthetic"."""
        from pyarrow import parquet

        texts: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        for name in self.done():
            path = self.folder / "scores" / f"{name}.parquet"
            for row in parquet.read_table(path, columns=["source", "kept"]).to_pylist():
                texts[row["source"]] += 1
                dropped[row["source"]] += not row["kept"]
        return {f"noise_{source}": dropped[source] / texts[source] for source in sorted(texts) if source}

    def _discard_leftovers(self, name: str) -> None:
        """Remove what a writer of this shard that was killed left half written."""
        for folder in ("shards", "scores", "done"):
            for leftover in (self.folder / folder).glob(f".{escape(name)}.*.tmp"):
                leftover.unlink(missing_ok=True)

    def _write(self, path: Path, content: bytes) -> None:
        with atomic_writer(path) as file:
            file.write(content)

    def finish(self) -> Path:
        """Write what is made of all shards: the index, one table, the list of kept pairs; return the list."""
        done = self.done()
        shards = self.folder / "shards"
        index = [
            {
                "name": f"{name}.tar",
                "samples": counts["written"],
                "bytes": (shards / f"{name}.tar").stat().st_size,
            }
            for name, counts in done.items()
        ]
        write_json({"shards": index}, shards / "index.json")
        tables = [self.folder / "scores" / f"{name}.parquet" for name in done]
        for _ in write_whole(tables, self.folder / "scores.parquet", self.folder / "kept.json"):
            pass
        return self.folder / "kept.json"


def _digest_of(samples: Sequence[Sample]) -> str:
    """Return what tells one input from another: its keys and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for sample in samples:
        digest.update(sample.key.encode())
        for suffix, member in sorted(sample.members.items()):
            digest.update(f"\n{suffix} {len(member)}\n".encode())
            digest.update(member)
    return digest.hexdigest()


def _of_each_text(sample: Sample) -> Iterator[Sample]:
    """Yield a sample for each text that is kept, with the others as they were judged."""
    for number, text in enumerate(sample.kept):
        others = [c for c in sample.candidates if not c.kept]
        yield replace(sample, key=f"{sample.key}-{number}", candidates=[text, *others])


def _tar(samples: Sequence[Sample]) -> bytes:
    """Return a tar of the samples that keep a text; the same samples give the same bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for sample in samples:
            for suffix, member in sorted(_members(sample).items()):
                info = tarfile.TarInfo(f"{sample.key}.{suffix}")
                info.size = len(member)
                tar.addfile(info, io.BytesIO(member))
    return content.getvalue()


def _members(sample: Sample) -> dict[str, bytes]:
    images = {suffix: member for suffix, member in sample.members.items() if suffix not in ("json", "txt")}
    about = {
        **sample.about,
        "texts": [candidate.text for candidate in sample.kept],
        "capfilt": [candidate.flat() for candidate in sample.candidates],
    }
    best = sample.kept[0].text
    return {**images, "json": json.dumps(about, ensure_ascii=False).encode(), "txt": best.encode()}


def _table(samples: Sequence[Sample], scores: Sequence[str]) -> bytes:
    from pyarrow import BufferOutputStream, Table, float64, parquet, schema, string
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
    rows = list(_rows(samples))
    sink = BufferOutputStream()
    parquet.write_table(Table.from_pylist(rows, schema=columns), sink)
    return sink.getvalue().to_pybytes()


def _rows(samples: Sequence[Sample]) -> Iterator[dict[str, Any]]:
    for sample in samples:
        url = sample.about.get("url")
        named = {
            "shard": str(sample.about.get("capfilt_shard", "")),
            "key": sample.key,
            "url": url if isinstance(url, str) else None,
        }
        if sample.failure:
            yield {**named, "source": "", "kept": False, "reason": sample.failure}
        for candidate in sample.candidates:
            yield {**named, **candidate.flat()}
