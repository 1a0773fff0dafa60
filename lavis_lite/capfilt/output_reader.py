"""The output folder of CapFilt: where its files are, and what they say.

==============================  =================================================================
``settings.json``               what the folder was begun with: settings, models, text key, shards
``shards/NAME.tar``             samples that keep a text: image bytes unchanged, ``json``, ``txt``
``scores/NAME.parquet``         every text of every sample, with its scores and the decision
``times/NAME.json``             how long the unit took
``done/NAME.json``              the marker of a finished unit: counts, digests of the files above
``failed/NAME.txt``             the error of a unit that was set aside
``shards/index.json``           of all units, once all are done: samples of each tar,
``scores.parquet``              all tables,
``kept.json``                   all kept pairs
==============================  =================================================================
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lavis_lite.capfilt.output_names import digest_of
from lavis_lite.common.files import FileError, first_line, read_json
from lavis_lite.common.media.images import IMAGE_SUFFIXES

SETTINGS_FILE = "settings.json"
# Columns of a table beside the scores; a row without a source is a failed sample.
TEXT_COLUMNS = ("shard", "key", "url", "source", "text", "kept", "reason")

MAX_IMAGE_BYTES = 64 << 20  # of an image of a report

Row = dict[str, Any]


class CapFiltError(ValueError):
    """An output folder or an input that cannot be used; the message says which and why."""


class OutputReader:
    """Reads an output folder, also one that version 0.1.0 wrote or that is being written.

    Args:
        folder: need not exist, or be an output folder.
    """

    accepts_version_0_1 = True

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self.table_file = self.folder / "scores.parquet"
        self.pairs_file = self.folder / "kept.json"
        self.index_file = self.folder / "shards" / "index.json"

    def merged_files(self) -> list[Path]:
        """Return the files that describe all units together."""
        return [self.folder / SETTINGS_FILE, self.table_file, self.pairs_file]

    def tar(self, name: str) -> Path:
        """Return the tar of a unit."""
        return self.folder / "shards" / f"{name}.tar"

    def table(self, name: str) -> Path:
        """Return the table of a unit."""
        return self.folder / "scores" / f"{name}.parquet"

    def times(self, name: str) -> Path:
        """Return the file of a unit's times."""
        return self.folder / "times" / f"{name}.json"

    def marker_file(self, name: str) -> Path:
        """Return the marker of a unit."""
        return self.folder / "done" / f"{name}.json"

    def failure_file(self, name: str) -> Path:
        """Return the error of a unit that was set aside."""
        return self.folder / "failed" / f"{name}.txt"

    def is_begun(self) -> bool:
        """Return True if the folder looks like an output folder."""
        return (self.folder / SETTINGS_FILE).is_file() and (self.folder / "done").is_dir()

    def settings(self) -> dict[str, Any]:
        """Return what the folder was begun with: "settings", "models", "text_key", "shards".

        Raises:
            CapFiltError: not an output folder, or its settings.json is damaged.
        """
        file = self.folder / SETTINGS_FILE
        if not file.is_file():
            raise CapFiltError(f"{self.folder}: not a capfilt output folder, it has no {SETTINGS_FILE}.")
        try:
            settings = read_json(file)
        except FileError as error:
            raise CapFiltError(f"{error} The command that began the folder repairs it.") from error
        if not is_settings(settings):
            raise CapFiltError(
                f"{self.folder}: not a capfilt output folder, its {SETTINGS_FILE} is of another program."
            )
        return settings

    def marker(self, name: str) -> dict[str, Any] | None:
        """Return the marker of a finished unit; None if it is missing or damaged."""
        try:
            marker = read_json(self.marker_file(name))
        except FileError:
            return None
        if not isinstance(marker, dict):
            return None
        if self.accepts_version_0_1 and "digest" not in marker:
            return marker
        return marker if marker.pop("digest", None) == marker_digest(marker) else None

    def markers(self) -> dict[str, dict[str, Any]]:
        """Return the markers of all finished units by name, without damaged ones."""
        names = sorted(file.stem for file in (self.folder / "done").glob("*.json"))
        markers = ((name, self.marker(name)) for name in names)
        return {name: marker for name, marker in markers if marker is not None}

    def failures(self) -> dict[str, str]:
        """Return the errors of the units that were set aside, by name."""
        files = sorted((self.folder / "failed").glob("*.txt"))
        return {file.stem: file.read_text(encoding="utf-8", errors="replace").strip() for file in files}

    def time_records(self) -> list[dict[str, float]]:
        """Return "samples", "seconds" and "finished" of each unit, without missing and damaged ones."""
        records = []
        for file in sorted((self.folder / "times").glob("*.json")):
            with suppress(FileError, KeyError, TypeError, ValueError):
                record = read_json(file)
                records.append({key: float(record[key]) for key in ("samples", "seconds", "finished")})
        return records

    def table_names(self) -> list[str]:
        """Return the units that have a table, finished or not."""
        return sorted(file.stem for file in (self.folder / "scores").glob("*.parquet"))

    def rows(self, name: str) -> list[Row]:
        """Return the table of a unit: a row for each text, and one for each failed sample.

        Raises:
            FileError: the table is missing or damaged.
        """
        return read_table(self.table(name)).to_pylist()

    def score_names(self, name: str) -> list[str]:
        """Return the names of the scores in the table of a unit."""
        return [column for column in read_table(self.table(name)).schema.names if column not in TEXT_COLUMNS]


def is_settings(content: Any) -> bool:
    """Return True if `content` is that of the settings.json of an output folder."""
    return isinstance(content, dict) and {"settings", "models", "shards"} <= content.keys()


def marker_digest(content: Mapping[str, Any]) -> str:
    """Return the digest that a marker with this content holds."""
    return digest_of(json.dumps(content, sort_keys=True).encode())


def read_table(path: Path) -> Any:
    """Return a Parquet file as a table of pyarrow.

    Raises:
        FileError: the file is missing or damaged.
    """
    from pyarrow import ArrowException, parquet

    try:
        return parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise FileError(f"{path}: cannot be read as Parquet ({first_line(error)}).") from error


def images_in_tar(path: Path, keys: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (key, bytes) of the images of some samples of a shard, as far as it can be read."""
    if not keys or not path.is_file():
        return
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                key, dot, suffix = member.name.partition(".")
                if key in keys and f"{dot}{suffix.lower()}" in IMAGE_SUFFIXES:
                    file = tar.extractfile(member) if member.size <= MAX_IMAGE_BYTES else None
                    if file is not None:
                        yield key, file.read()
    except (tarfile.TarError, EOFError, OSError, ValueError):
        return  # a damaged shard has been named where it was read
