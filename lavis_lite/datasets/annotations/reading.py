"""Annotation files of every kind, told apart by content where the name does not say."""

from __future__ import annotations

from pathlib import Path

from lavis_lite.common.registry import nearest
from lavis_lite.datasets.annotations.errors import AnnotationError, Records
from lavis_lite.datasets.annotations.json_files import parse_json
from lavis_lite.datasets.annotations.parquet_files import MAGIC, read_parquet
from lavis_lite.datasets.annotations.tables import parse_table
from lavis_lite.datasets.annotations.text import decode, read_bytes

_JSON_LINES = (".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv", ".tab")
_OTHER_KINDS = {
    b"PK\x03\x04": "an archive or an Excel workbook; in Excel, save it as 'CSV UTF-8'",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; in Excel, save it as 'CSV UTF-8'",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"ARROW1": "an Arrow file; write it as parquet",
}


def read_records(path: Path) -> Records:
    """Return the records of a file of JSON, JSON lines, parquet, or a table (CSV, TSV and the like).

    Documents in the layouts of COCO, Karpathy and sd-scripts, and objects {file name: caption}, become
    records with "image" and "caption".

    Raises:
        AnnotationError: the file is missing, empty or malformed; the message says where.
    """
    if not path.exists():
        near = nearest(path.name, [file.name for file in path.parent.glob("*")])
        hint = f" Did you mean {near[0]}?" if near else ""
        if path.is_symlink():
            hint = " It is a link to a file that does not exist."
        raise AnnotationError(f"{path}: no such annotation file.{hint}")
    records = _parse(path)
    if not records.records:
        raise AnnotationError(f"{path}: holds no annotation.")
    return records


def _parse(path: Path) -> Records:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return read_parquet(path)
    content = read_bytes(path)
    if content.startswith(MAGIC):
        return read_parquet(path)
    for magic, kind in _OTHER_KINDS.items():
        if content.startswith(magic):
            raise AnnotationError(
                f"{path}: is {kind}. Annotations are read from .json, .jsonl, .csv, .tsv, .txt and .parquet "
                "files."
            )
    text = decode(content, path)
    del content  # do not hold large files in memory twice
    if suffix in (".json", *_JSON_LINES):
        return parse_json(text, path, lines_first=suffix in _JSON_LINES)
    if suffix not in _TABLES and text.lstrip().startswith(("{", "[")):
        return parse_json(text, path)
    return parse_table(text, path)
