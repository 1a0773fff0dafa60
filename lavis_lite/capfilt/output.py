"""What CapFilt leaves of a unit: a tar, a table, a record of times, a marker. All of them, or none counts.

=============================  ===============================================================
``shards/<name>.tar``          the samples that keep a text: image bytes as they were, ``json``
``scores/<name>.parquet``      every text of every sample, with scores and decision
``times/<name>.json``          seconds of each stage
``done/<name>.json``           counts, digests of input, settings and the files above; written last
=============================  ===============================================================
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any

from lavis_lite.capfilt.begin import CapFiltError, begin
from lavis_lite.capfilt.markers import marker_file, read_marker, read_markers, write_marker
from lavis_lite.capfilt.names import digest_of
from lavis_lite.capfilt.samples import Sample
from lavis_lite.capfilt.tables import write_whole
from lavis_lite.capfilt.timing import StageTimes, is_time_record
from lavis_lite.capfilt.unit_files import (
    of_each_text,
    size_and_digest,
    with_output_keys,
    write_table,
    write_tar,
)
from lavis_lite.common.files import first_line, printable, write_json

logger = logging.getLogger(__name__)

SUBFOLDERS = ("shards", "scores", "done", "failed", "times")
# Smaller files are always compared by their digest, larger ones by their size unless asked otherwise.
SMALL_BYTES = 1 << 20


class OutputFolder:
    """The output of all units, and which of them are done.

    Args:
        identity: all that the output depends on; a folder that was begun with something else is refused.
        verify: whether to compare the digests of large files, too, when asked what is done.

    Raises:
        CapFiltError: the folder holds the output of other settings, or something other than output.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any], verify: bool = False) -> None:
        self.folder = Path(folder).expanduser()
        self.identity = json.loads(json.dumps(identity))
        self.made_with = digest_of(json.dumps(self.identity, sort_keys=True).encode())
        self.verify = verify
        self._whole: set[str] = set()
        self._reported: set[str] = set()
        begin(self.folder, self.identity, self.made_with)
        try:
            for name in SUBFOLDERS:
                (self.folder / name).mkdir(exist_ok=True)
        except OSError as error:
            raise CapFiltError(
                f"{self.folder}: cannot be used as output folder ({first_line(error)})."
            ) from error

    def is_done(self, name: str) -> bool:
        """Return whether all files of a unit are what its marker says; what is not is logged."""
        if name in self._whole:
            return True
        if not marker_file(self.folder, name).exists():
            return False
        damage = self._damage_of(name)
        if damage:
            if name not in self._reported:
                logger.warning("%s; the unit %s is done again.", damage, name)
            self._reported.add(name)
            return False
        self._whole.add(name)
        return True

    def done(self) -> dict[str, dict[str, Any]]:
        """Return the marker of each unit that is done, by name."""
        return read_markers(self.folder)

    def _damage_of(self, name: str) -> str:
        """Return what is wrong with the files of a unit that has a marker; "" for nothing."""
        marker = read_marker(self.folder, name)
        if marker is None:
            return f"{marker_file(self.folder, name)} is damaged"
        if marker["made_with"] != self.made_with:
            return f"{marker_file(self.folder, name)} is of other settings"
        for file, facts in ((self._tar(name), marker["tar"]), (self._table(name), marker["table"])):
            if not file.is_file():
                return f"{file} is missing"
            size = file.stat().st_size
            if size != facts["bytes"]:
                return f"{file} has {size} bytes in place of {facts['bytes']}"
            if (self.verify or size <= SMALL_BYTES) and size_and_digest(file) != facts:
                return f"{file} is damaged"
        return "" if is_time_record(self._times(name)) else f"{self._times(name)} is missing or damaged"

    def commit(
        self,
        name: str,
        samples: Sequence[Sample],
        damage: Sequence[str],
        scores: Sequence[str],
        times: StageTimes,
    ) -> dict[str, Any]:
        """Write a unit's files, the marker last; return what the marker says.

        Nobody else may be writing this unit.

        Args:
            damage: what is wrong with the shard.
            scores: names of the scores that a text may have.
            times: of the unit so far; the time of writing is added.
        """
        marker_file(self.folder, name).unlink(missing_ok=True)  # it vouches for the files before
        self._discard_leftovers(name)
        digest_of_input = _digest_of(samples)
        samples = with_output_keys(samples)
        kept = [sample for sample in samples if sample.kept]
        failed = [sample for sample in samples if sample.failure]
        each_text = self.identity.get("settings", {}).get("sample_per") == "text"
        written = [part for sample in kept for part in of_each_text(sample)] if each_text else kept
        with times.of("write"):
            write_tar(written, self._tar(name))
            write_table(samples, scores, self._table(name))
        write_json(times.record(len(samples)), self._times(name))
        marker = {
            "samples": len(samples),
            "kept": len(kept),
            "filtered": len(samples) - len(kept) - len(failed),
            "failed": len(failed),
            "written": len(written),
            "reasons": _counted(printable(sample.failure_kind) for sample in failed),
            "texts": _text_counts(samples),
            "damage": [printable(text) for text in damage],
            "input": digest_of_input,
            "made_with": self.made_with,
            "tar": size_and_digest(self._tar(name)),
            "table": size_and_digest(self._table(name)),
        }
        write_marker(self.folder, name, marker)
        self._whole.add(name)
        return marker

    def noise_ratios(self) -> dict[str, float]:
        """Return what share of each source's texts was dropped: "noise_web", "noise_synthetic"."""
        texts: Counter[str] = Counter()
        kept: Counter[str] = Counter()
        for marker in self.done().values():
            for source, counts in marker["texts"].items():
                texts[source] += counts["all"]
                kept[source] += counts["kept"]
        return {f"noise_{source}": (texts[source] - kept[source]) / texts[source] for source in sorted(texts)}

    def cannot_write(self, error: OSError) -> CapFiltError:
        """Return what to raise where the whole run cannot write, as on a full disk."""
        return CapFiltError(f"{self.folder}: {first_line(error)}. Make room; the same command continues.")

    def withdraw_damaged_tables(self) -> list[str]:
        """Return the units whose table is not what their marker says; they do not count as done any more."""
        damaged = [
            name
            for name, marker in self.done().items()
            if not self._table(name).is_file() or size_and_digest(self._table(name)) != marker["table"]
        ]
        for name in damaged:
            logger.warning("%s is damaged; the unit is done again.", self._table(name))
            marker_file(self.folder, name).unlink(missing_ok=True)
            self._whole.discard(name)
        return damaged

    def finish(self) -> Path:
        """Write what is made of all units: the index, one table, the list of kept pairs; return the list."""
        done = self.done()
        index = [
            {"name": f"{name}.tar", "samples": marker["written"], "bytes": marker["tar"]["bytes"]}
            for name, marker in done.items()
        ]
        write_json({"shards": index}, self.folder / "shards" / "index.json")
        tables = [self._table(name) for name in done]
        for _ in write_whole(tables, self.folder / "scores.parquet", self.folder / "kept.json"):
            pass
        return self.folder / "kept.json"

    def _tar(self, name: str) -> Path:
        return self.folder / "shards" / f"{name}.tar"

    def _table(self, name: str) -> Path:
        return self.folder / "scores" / f"{name}.parquet"

    def _times(self, name: str) -> Path:
        return self.folder / "times" / f"{name}.json"

    def _discard_leftovers(self, name: str) -> None:
        """Remove what a writer of this unit that was killed left half written."""
        for file in (self._tar(name), self._table(name), self._times(name), marker_file(self.folder, name)):
            for leftover in file.parent.glob(f".{escape(file.name)}.*.tmp"):
                if leftover.name[len(file.name) + 2 : -len(".tmp")].isdigit():
                    leftover.unlink(missing_ok=True)


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _text_counts(samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    """Return how many texts of each source there are, and how many are kept."""
    texts = [candidate for sample in samples for candidate in sample.candidates]
    return {
        source: {
            "all": sum(text.source == source for text in texts),
            "kept": sum(text.source == source and text.kept for text in texts),
        }
        for source in sorted({text.source for text in texts})
    }


def _digest_of(samples: Sequence[Sample]) -> str:
    """Return what tells one input from another: its keys and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for sample in samples:
        digest.update(sample.key.encode("utf-8", "surrogatepass"))
        for suffix, member in sorted(sample.members.items()):
            digest.update(f"\n{suffix} {len(member)}\n".encode())
            digest.update(member)
    return digest.hexdigest()
