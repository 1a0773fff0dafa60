"""Damaged annotation files: whole entries come out as they were written, or the file is refused by name."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from damage import bounded, damaged, seeds
from PIL import Image
from pyarrow import parquet

from lavis_lite.common.media.images import ImageError
from lavis_lite.datasets.annotations import AnnotationError, check_caption_records, read_records
from lavis_lite.datasets.annotations.parquet_files import STORED_KEY

TEXTS = (
    "a red circle, left of a blue square, on grass",
    'a sign that says "stop"',
    '"no entry", says another',
    "ein Café in Zürich; geschlossen",
    "two | three bars",
    "日本の写真 🦜",
    "1,000 birds",
    "it's 5 o'clock\\",
)
PAIRS = [(f"{number:02d}.jpg", f"{text} {number}") for number, text in enumerate(TEXTS * 2)]


def _table(delimiter: str, quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator="\n")
    writer.writerows([("image", "caption"), *PAIRS])
    return stream.getvalue().encode()


def _lines(rows: list[str], before: str = "", after: str = "", end: str = "\n") -> bytes:
    return (before + end.join(rows) + after).encode()


def _dump(content: object) -> str:
    return json.dumps(content, ensure_ascii=False)


def _coco() -> bytes:
    images = [_dump({"id": number, "file_name": image}) for number, (image, _) in enumerate(PAIRS)]
    captions = [
        _dump({"id": 100 + n, "image_id": n, "caption": caption}) for n, (_, caption) in enumerate(PAIRS)
    ]
    return _lines(
        [
            _lines(images, '{"images": [\n', "\n]", ",\n").decode(),
            '"annotations": [\n' + ",\n".join(captions),
        ],
        after="\n]}",
        end=",\n",
    )


def _parquet(with_images: bool) -> bytes:
    images: list[object] = [image for image, _ in PAIRS]
    if with_images:
        png = io.BytesIO()
        Image.new("RGB", (4, 4)).save(png, "PNG")
        images = [{"bytes": png.getvalue(), "path": image} for image in images]
    stream = io.BytesIO()
    table = pyarrow.table({"image": images, "caption": [text for _, text in PAIRS]})
    parquet.write_table(table, stream, write_page_checksum=True, row_group_size=5)
    return stream.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "comma.csv": lambda: _table(","),
    "quoted.csv": lambda: _table(",", csv.QUOTE_ALL),
    "semicolon.csv": lambda: _table(";"),
    "tab.tsv": lambda: _table("\t"),
    "bar.txt": lambda: _table("|"),
    "lines.jsonl": lambda: _lines([_dump({"image": image, "caption": text}) for image, text in PAIRS]),
    "list.json": lambda: _lines(
        [_dump({"image": image, "caption": text}) for image, text in PAIRS], "[\n", "\n]", ",\n"
    ),
    "object.json": lambda: _lines([f"{_dump(i)}: {_dump(t)}" for i, t in PAIRS], "{\n", "\n}", ",\n"),
    "kohya.json": lambda: _lines(
        [f"{_dump(i)}: {_dump({'caption': t, 'tags': 'a, b'})}" for i, t in PAIRS], "{\n", "\n}", ",\n"
    ),
    "karpathy.json": lambda: _lines(
        [_dump({"filename": i, "sentences": [{"raw": t}]}) for i, t in PAIRS], '{"images": [\n', "\n]}", ",\n"
    ),
    "coco.json": _coco,
    "names.parquet": lambda: _parquet(with_images=False),
    "images.parquet": lambda: _parquet(with_images=True),
}


def _text_damage(content: bytes, draw: random.Random) -> tuple[bytes, str]:
    """Return `content` with a fault that people and their programs make."""
    place = draw.randrange(len(content))
    kind = draw.choice(("insert", "insert", "replace", "remove", "encode", "join", "twice"))
    if kind == "insert":
        piece = draw.choice(
            (b'"', b'"', b",", b";", b"\t", b"|", b"\n", b"\r", b"\0", b"\\", b'""', b"{", b"]")
        )
        return content[:place] + piece + content[place:], f"{piece!r} at {place}"
    if kind in ("replace", "remove"):
        old = draw.choice(
            [piece for piece in (b'"', b",", b";", b"\t", b"|", b"\n", b":") if piece in content]
        )
        places = [at for at in range(len(content)) if content.startswith(old, at)]
        place = draw.choice(places)
        new = draw.choice((b'"', b",", b";", b"\n", b"'", b" ")) if kind == "replace" else b""
        return content[:place] + new + content[place + 1 :], f"{old!r} at {place} made {new!r}"
    if kind == "encode":
        encoding = draw.choice(("utf-16", "utf-16-le", "utf-8-sig", "cp932", "cp1252"))
        return content.decode().encode(encoding, errors="replace"), f"as {encoding}"
    lines = content.splitlines(keepends=True)
    number = draw.randrange(len(lines) - 1)
    if kind == "join":
        lines[number] = lines[number].rstrip(b"\n")
        return b"".join(lines), f"line {number + 1} joined to the next"
    return b"".join([*lines[:number], lines[number], *lines[number:]]), f"line {number + 1} twice"


def _undamaged(name: str, original: bytes, content: bytes) -> set[tuple[str, str]]:
    """Return the pairs of which all lines are whole in the damaged file (of parquet, none is said to be)."""
    if name.endswith(".parquet"):
        return set()
    ends = b",\n" if name.endswith(".json") else b"\n"
    whole = {line.strip(ends) for line in content.split(b"\n")}
    lines = [line.strip(ends) for line in original.split(b"\n")]
    pairs = set()
    for image, text in PAIRS:
        # the line of the caption, and in COCO's layout that of the file name
        about = [line for line in lines if _is_about(line, image, text)]
        assert len(about) == (2 if name == "coco.json" else 1), (name, about)
        if whole.issuperset(about):
            pairs.add((image, text))
    return pairs


def _is_about(line: bytes, image: str, text: str) -> bool:
    forms = (image, text, _dump(text)[1:-1], text.replace('"', '""'))
    return any(form in line.decode() for form in forms)


def _read(path: Path) -> list[tuple[str, str]]:
    records = check_caption_records(read_records(path), "any", refuse_no_value=True)
    for record in records:
        if STORED_KEY in record:
            with contextlib.suppress(ImageError):
                record[STORED_KEY].open()
    return [(record["image"], caption) for record in records for caption in record["caption"]]


@pytest.mark.parametrize("name", FILES)
def test_the_undamaged_files_are_read_as_they_were_written(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES[name]())
    assert _read(path) == PAIRS


def _attempt(name: str, seed: int, folder: Path) -> str:
    draw = random.Random(seed)
    original = FILES[name]()
    by_people = draw.random() < 0.5 and not name.endswith(".parquet")
    content, fault = (_text_damage if by_people else damaged)(original, draw)
    path = folder / name
    path.write_bytes(content)
    try:
        with bounded():
            pairs = _read(path)
    except AnnotationError as error:
        assert name in str(error), (fault, error)
        return "refused"
    lost = _undamaged(name, original, content) - set(pairs)
    assert not lost, f"seed {seed}: {fault}: {sorted(lost)} came out as {sorted(set(pairs) - set(PAIRS))}"
    if name.endswith(".parquet"):
        assert {caption for _, caption in pairs} <= {caption for _, caption in PAIRS}, fault
    return "read"


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_loses_no_whole_entry_in_silence(tmp_path, name):
    shift = list(FILES).index(name)
    outcomes = [_attempt(name, seed, tmp_path) for seed in seeds(quick=100, full=2500)[shift :: len(FILES)]]
    assert "refused" in outcomes
