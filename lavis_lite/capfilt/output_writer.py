"""Writes the output folder of CapFilt: all files of a unit, then its marker, without which none counts."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lavis_lite.capfilt.job import ShardResult
from lavis_lite.capfilt.output_names import digest_of, output_keys
from lavis_lite.capfilt.output_reader import (
    SETTINGS_FILE,
    CapFiltError,
    OutputReader,
    is_settings,
    marker_digest,
)
from lavis_lite.capfilt.score_tables import merge_tables, write_table
from lavis_lite.capfilt.sources import Sample
from lavis_lite.common.files import FileError, atomic_writer, first_line, printable, read_json, write_json

logger = logging.getLogger(__name__)

# Smaller files are always compared by their digest, larger ones by their size unless `verify` is set.
SMALL_BYTES = 1 << 20
DIFFERENCES_SHOWN = 8


class OutputWriter(OutputReader):
    """Begins or continues an output folder. Any number of processes may write into one folder at once.

    Args:
        identity: everything that the output depends on; a folder that was begun with something else is
            refused.
        verify: compare the digests of large files, too, to find out which units are done.

    Raises:
        CapFiltError: the folder was begun with something else, is not an output folder, or cannot be
            written.
    """

    accepts_version_0_1 = False

    def __init__(self, folder: str | Path, identity: Mapping[str, Any], verify: bool = False) -> None:
        super().__init__(folder)
        self.identity = json.loads(json.dumps(identity))
        self.made_with = digest_of(json.dumps(self.identity, sort_keys=True).encode())
        self.verify = verify
        self._whole: set[str] = set()
        self._reported: set[str] = set()
        try:
            self._refuse_foreign()
            self.folder.mkdir(parents=True, exist_ok=True)
            # of several processes that begin at once, one writes the settings and the others compare
            with FileLock(self.folder / ".settings.lock"):
                self._compare_or_write_settings()
            for name in ("shards", "scores", "done", "failed", "times"):
                (self.folder / name).mkdir(exist_ok=True)
        except OSError as error:
            raise CapFiltError(
                f"{self.folder}: cannot be used as output folder ({first_line(error)})."
            ) from error

    def _refuse_foreign(self) -> None:
        if not self.folder.exists():
            return
        entries = sorted(entry.name for entry in self.folder.iterdir() if not entry.name.startswith("."))
        # The settings are written before anything else.
        if entries and not (self.folder / SETTINGS_FILE).is_file() and not self.markers():
            names = ", ".join(entries[:3]) + (", ..." if len(entries) > 3 else "")
            raise CapFiltError(
                f"{self.folder}: is not empty and not an output folder of capfilt (it holds {names}). "
                "Choose a new or empty folder."
            )

    def _compare_or_write_settings(self) -> None:
        file = self.folder / SETTINGS_FILE
        try:
            before = read_json(file)
        except FileError as error:
            if file.exists() and not (self.folder / "done").is_dir():
                raise CapFiltError(f"{error} Choose another output folder.") from error
            if any(marker["made_with"] != self.made_with for marker in self.markers().values()):
                raise CapFiltError(
                    f"{self.folder}: {SETTINGS_FILE} is missing or damaged, and the finished units were made "
                    "with other settings. Give the settings of the first run, or another output folder."
                ) from None
            write_json(self.identity, file)
            return
        if not is_settings(before):
            raise CapFiltError(f"{file}: was not written by capfilt. Choose another output folder.")
        if isinstance(before["shards"], list):
            raise CapFiltError(
                f"{self.folder}: was begun by version 0.1.0 of lavis-lite, which named shards otherwise. "
                "Finish it with that version, or give another output folder; refilter and report can read it."
            )
        differing = list(differences(before, self.identity))
        if differing:
            shown = "; ".join(differing[:DIFFERENCES_SHOWN])
            if len(differing) > DIFFERENCES_SHOWN:
                shown += f"; and {len(differing) - DIFFERENCES_SHOWN} more"
            raise CapFiltError(
                f"{self.folder}: was begun with other settings ({shown}). Give another output folder, or the "
                "same settings."
            )

    def is_done(self, name: str) -> bool:
        """Return True if the marker of a unit, and the files that it describes, are there and undamaged."""
        if name in self._whole:
            return True
        if not self.marker_file(name).exists():
            return False
        damage = self._damage_of(name)
        if damage and name not in self._reported:
            logger.warning("%s; the unit %s is done again.", damage, name)
            self._reported.add(name)
        if not damage:
            self._whole.add(name)
        return not damage

    def _damage_of(self, name: str) -> str:
        """Return what is wrong with the files of a unit that has a marker; "" for nothing."""
        marker = self.marker(name)
        if marker is None:
            return f"{self.marker_file(name)} is damaged"
        if marker["made_with"] != self.made_with:
            return f"{self.marker_file(name)} is of other settings"
        for file, facts in ((self.tar(name), marker["tar"]), (self.table(name), marker["table"])):
            if not file.is_file():
                return f"{file} is missing"
            size = file.stat().st_size
            if size != facts["bytes"]:
                return f"{file} has {size} bytes in place of {facts['bytes']}"
            if (self.verify or size <= SMALL_BYTES) and _size_and_digest(file) != facts:
                return f"{file} is damaged"
        return ""

    def claim(self, name: str) -> FileLock | None:
        """Return the lock of a unit that is to be done; None if it is done or another process has it."""
        if self.is_done(name):
            return None
        # another thread, the one that writes, releases it
        lock = FileLock(self.folder / "done" / f".{name}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        if self.is_done(name):
            lock.release()
            return None
        return lock

    def commit(self, name: str, result: ShardResult, score_names: Sequence[str]) -> dict[str, Any]:
        """Write the files of a unit, the marker last; return the marker. The caller holds the unit's lock.

        Args:
            score_names: of the scores that a text may have.
        """
        self.marker_file(name).unlink(missing_ok=True)  # it vouches for the files before
        self._remove_leftovers(name)
        samples = _with_output_keys(result.samples)
        kept = [sample for sample in samples if sample.kept]
        failed = [sample for sample in samples if sample.failure]
        each_text = self.identity.get("settings", {}).get("sample_per") == "text"
        written = [part for sample in kept for part in _of_each_text(sample)] if each_text else kept
        _write_tar(written, self.tar(name))
        write_table(samples, score_names, self.table(name))
        finished = time.time()
        times = {"samples": len(samples), "seconds": finished - result.started, "finished": finished}
        write_json(times, self.times(name))
        kinds = Counter(printable(sample.failure.partition(": ")[0]) for sample in failed)
        marker = {
            "samples": len(samples),
            "kept": len(kept),
            "filtered": len(samples) - len(kept) - len(failed),
            "failed": len(failed),
            "written": len(written),
            "reasons": dict(sorted(kinds.items())),
            "texts": _text_counts(samples),
            "damage": [printable(text) for text in result.damage],
            "input": _input_digest(result.samples),
            "made_with": self.made_with,
            "tar": _size_and_digest(self.tar(name)),
            "table": _size_and_digest(self.table(name)),
        }
        write_json({**marker, "digest": marker_digest(marker)}, self.marker_file(name))
        self.failure_file(name).unlink(missing_ok=True)
        self._whole.add(name)
        return marker

    def _remove_leftovers(self, name: str) -> None:
        """Remove the half-written files of a killed writer of this unit."""
        for file in (self.tar(name), self.table(name), self.times(name), self.marker_file(name)):
            for leftover in file.parent.glob(f".{escape(file.name)}.*.tmp"):
                if leftover.name[len(file.name) + 2 : -len(".tmp")].isdigit():
                    leftover.unlink(missing_ok=True)

    def set_aside(self, name: str, error: str) -> None:
        """Write down why a unit could not be done."""
        with atomic_writer(self.failure_file(name), "w") as file:
            file.write(f"{error}\n")

    def finish(self, names: Sequence[str]) -> list[str]:
        """Write the index, the table and the pairs of all units, if the units `names` are all done.

        Returns:
            Units whose table turned out to be damaged: they are not done any more, and nothing is written.

        Raises:
            CapFiltError: the disk is full.
        """
        if not all(self.is_done(name) for name in names):
            return []
        try:
            with FileLock(self.folder / ".finish.lock"):
                markers = self.markers()
                damaged = [name for name in markers if not self._has_table(name, markers[name])]
                for name in damaged:
                    logger.warning("%s is damaged; the unit is done again.", self.table(name))
                    self.marker_file(name).unlink(missing_ok=True)
                    self._whole.discard(name)
                if not damaged:
                    index = [
                        {"name": f"{name}.tar", "samples": m["written"], "bytes": m["tar"]["bytes"]}
                        for name, m in markers.items()
                    ]
                    write_json({"shards": index}, self.index_file)
                    merge_tables([self.table(name) for name in markers], self.table_file, self.pairs_file)
        except OSError as error:
            raise self.cannot_write(error) from error
        return damaged

    def _has_table(self, name: str, marker: Mapping[str, Any]) -> bool:
        return self.table(name).is_file() and _size_and_digest(self.table(name)) == marker["table"]

    def cannot_write(self, error: OSError) -> CapFiltError:
        """Return the error of a run that cannot write, as on a full disk."""
        return CapFiltError(f"{self.folder}: {first_line(error)}. Make room; the same command continues.")


def differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """Yield "KEY was X and is now Y" for each dotted key whose value differs.

    >>> list(differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}))
    ['a.c was 2 and is now 3']
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted(before.keys() | now.keys()):
            yield from differences(before.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif before != now:
        yield f"{key} was {_shown(before)} and is now {_shown(now)}"


def _shown(value: Any) -> str:
    text = "not set" if value is None else repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _with_output_keys(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples with safe and unique keys; "capfilt_key" of the json is a key that was replaced."""
    names = output_keys([sample.key for sample in samples])
    return [
        sample
        if name == sample.key
        else replace(sample, key=name, about={**sample.about, "capfilt_key": sample.key})
        for sample, name in zip(samples, names, strict=True)
    ]


def _of_each_text(sample: Sample) -> Iterator[Sample]:
    """Yield a sample for each kept text, together with the dropped texts."""
    dropped = [candidate for candidate in sample.candidates if not candidate.kept]
    for number, text in enumerate(sample.kept):
        yield replace(sample, key=f"{sample.key}-{number}", candidates=[text, *dropped])


def _write_tar(samples: Sequence[Sample], path: Path) -> None:
    """Write samples that each keep a text; equal samples give equal bytes."""
    with atomic_writer(path) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for sample in samples:
            about = {
                **sample.about,
                "texts": [candidate.text for candidate in sample.kept],
                "capfilt": [candidate.as_row() for candidate in sample.candidates],
            }
            members = {
                **sample.members,
                # in JSON, half of a surrogate pair and its escape are the same text
                "json": json.dumps(about, ensure_ascii=False).encode("utf-8", "backslashreplace"),
                "txt": sample.kept[0].text.encode(),
            }
            for suffix, member in sorted(members.items()):
                info = tarfile.TarInfo(f"{sample.key}.{suffix}")
                info.size = len(member)
                tar.addfile(info, io.BytesIO(member))


def _text_counts(samples: Sequence[Sample]) -> dict[str, dict[str, int]]:
    """Return source -> how many texts there are, and how many are kept."""
    texts = [candidate for sample in samples for candidate in sample.candidates]
    every = Counter(text.source for text in texts)
    kept = Counter(text.source for text in texts if text.kept)
    return {source: {"all": every[source], "kept": kept[source]} for source in sorted(every)}


def _input_digest(samples: Sequence[Sample]) -> str:
    """Return a digest of the keys and bytes of a unit's samples."""
    digest = hashlib.blake2b(digest_size=16)
    for sample in samples:
        digest.update(sample.key.encode("utf-8", "surrogatepass"))
        for suffix, member in sorted(sample.members.items()):
            digest.update(f"\n{suffix} {len(member)}\n".encode())
            digest.update(member)
    return digest.hexdigest()


def _size_and_digest(path: Path) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=16)
    size = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size += len(block)
            digest.update(block)
    return {"bytes": size, "digest": digest.hexdigest()}
