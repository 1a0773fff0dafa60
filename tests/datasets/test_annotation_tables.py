"""Tables of captions: what people's programs write is read right, and what is not certain is refused."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from lavis_lite.datasets.annotations import AnnotationError, check_caption_records, read_records

TEXT = "a red circle, left of a blue square"


def read(path: Path, content: str | bytes) -> list[tuple[str, str]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    records = check_caption_records(read_records(path), "any", refuse_no_value=True)
    return [(record["image"], caption) for record in records for caption in record["caption"]]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("semicolon.csv", f"image;caption\na.jpg;{TEXT}\n"),
        ("tab.csv", f"image\tcaption\na.jpg\t{TEXT}\n"),
        ("tab.tsv", f"image\tcaption\na.jpg\t{TEXT}\n"),
        ("bar.csv", f"image_name| comment_number| comment\na.jpg| 0| {TEXT}\n"),
        ("excel.csv", f"sep=;\r\nimage;caption\r\na.jpg;{TEXT}\r\n"),
        ("unicode.txt", f"image\tcaption\r\na.jpg\t{TEXT}\r\n".encode("utf-16")),
        ("bom.csv", f'"image","caption"\na.jpg,"{TEXT}"\n'.encode("utf-8-sig")),
        ("names.CSV", f' File Name , Text\na.jpg, "{TEXT}"\n'),
        ("index.csv", f',image,caption\n0,a.jpg,"{TEXT}"\n,,\n\n'),
        ("old_mac.csv", f'image,caption\ra.jpg,"{TEXT}"\r'),
        ("no_suffix", f'filepath,comment\na.jpg,"{TEXT}"\n'),
        ("text.txt", f'image,caption\na.jpg,"{TEXT}"\n'),
        ("Flickr8k.token.txt", f"a.jpg#0\t{TEXT}\n"),
        ("no_header.csv", f'a.jpg,"{TEXT}"\n'),
        ("unquoted.csv", f"image,caption\na.jpg,{TEXT}\n"),
    ],
)
def test_a_table_is_read_however_it_is_separated_named_and_encoded(tmp_path, name, content):
    assert read(tmp_path / name, content) == [("a.jpg", TEXT)]


@pytest.mark.parametrize(
    "text",
    ['a "red" circle', "a cat\non a mat, asleep", "a\u2028b\x0bc\x85d", "1,000 birds", 'he said "no", twice'],
)
def test_a_text_keeps_its_quotes_commas_and_line_separators(tmp_path, text):
    quoted = text.replace('"', '""')
    assert read(tmp_path / "a.csv", f'image,caption\na.jpg,"{quoted}"\n') == [("a.jpg", text)]


def test_joined_commas_and_a_missing_header_are_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        read(tmp_path / "commas.csv", f"image,caption\na.jpg,{TEXT}\nb.jpg,x\n")
        read(tmp_path / "bare.csv", "a.jpg,x\n")
    assert "1 rows have a comma in the text without quotes around it (the first is line 2)" in caplog.text
    assert "has no header; column 1 is read as the images" in caplog.text


HEADER = "image,caption\na.jpg,fine\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + "b.jpg,one caption,another caption\n", "line 3: has 3 cells where the header has 2"),
        (HEADER + "b.jpg,fine,c.jpg,fine\n", "line 3: has 4 cells"),
        (HEADER + "b.jpg,fine, \n", "line 3: has 3 cells"),
        ("id,image,caption\n1,a.jpg,a cat, asleep\n", "line 2: has 4 cells where the header has 3"),
        ("caption,image\na cat, asleep,a.jpg\n", "line 2: has 3 cells"),
        (HEADER + "b.jpg\n", "line 3: has 1 cell where"),
        (HEADER + "b.jpg,a\rb\n", "line 4: has 1 cell where"),
        (HEADER + 'b.jpg,"red" circle\n', "line 3: a quote is out of place"),
        (HEADER + 'b.jpg,"a cat\nc.jpg,a dog\n', "line 3: a quote is out of place or not closed"),
        (
            HEADER + 'b.jpg,"a cat\nc.jpg,a dog"\n',
            "line 3: has a quoted text of several lines with what seem",
        ),
        ('image,caption\n01,fine\n02,"a cat\n03,a dog"\n', "line 3: has a quoted text of several lines"),
        (HEADER + "b.jpg,\n,text\n", "line 3, key 'caption': is empty(.|\n)*line 4, key 'image'"),
        (HEADER + "b.jpg,nan\nc.jpg,None\n", "line 3, key 'caption': 'nan' stands for a missing value"),
        (HEADER + "image,caption\n", "line 3: repeats the header"),
        ("image,caption,Caption\na.jpg,a,b\n", "line 1: the columns 2, 3 are all called 'caption'"),
        ("a.jpg,one,two\n", "line 1: expected a header that names a column of images"),
        ("name,words\n1,text\n", "line 1: expected a header"),
        ("a.jpg,fine\nb.jpg\n", "line 2: is not a file name and a caption"),
        ("image,words\na.jpg,x\nb.jpg,y\n", "lines 2, 3: has no 'caption'.*its keys are image, words"),
        ('image| caption\na.jpg| "quoted"\n', "line 2: has a space before a quoted text"),
        (HEADER + "b.jpg,a\0b\n", "line 3: holds a NUL"),
        ("image,caption\n", "holds no annotation"),
        ("url,caption\nhttp://x/a.jpg,x\n", "download them"),
        ("image,caption\nhttp://x/a.jpg,x\n", "line 2, key 'image': 'http://x/a.jpg' is an address"),
    ],
)
def test_what_would_change_a_text_or_lose_a_row_is_refused_with_the_line(tmp_path, content, message):
    with pytest.raises(AnnotationError, match=rf"captions\.csv: .*{message}"):
        read(tmp_path / "captions.csv", content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            (HEADER + "b.jpg,café\n").encode("cp1252"),
            r"line 3, byte 34 \(0xE9\) is not UTF-8.*'é'.*iconv -f cp1252",
        ),
        (HEADER.encode("utf-16-le"), "line 1: holds a NUL character.*UTF-16 without a byte order mark"),
        (HEADER.encode("utf-16")[:-1], "is not valid utf-16"),
        (b"PK\x03\x04rest", "Excel workbook.*CSV UTF-8"),
        (b"\x1f\x8brest", "unpack it first"),
        (b"\xff\xd8\xff\xe0rest", "is a JPEG image"),
    ],
)
def test_bytes_that_are_no_text_say_what_to_do(tmp_path, content, message):
    with pytest.raises(AnnotationError, match=rf"captions\.csv: .*{message}"):
        read(tmp_path / "captions.csv", content)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_pipe_a_device_or_a_folder_is_no_annotation_file(tmp_path, suffix):
    places = {kind: tmp_path / f"{kind}.{suffix}" for kind in ("named pipe", "device", "folder")}
    os.mkfifo(places["named pipe"])
    places["device"].symlink_to("/dev/zero")
    places["folder"].mkdir()
    for kind, path in places.items():
        with pytest.raises(AnnotationError, match=f"is a {kind}, not a file"):
            read_records(path)


def test_many_errors_of_a_file_are_named_once_each_and_counted(tmp_path):
    rows = "".join(f"{number}.jpg,\n" for number in range(20)) + "x.jpg,nan\n"
    with pytest.raises(AnnotationError) as error:
        read(tmp_path / "a.csv", "image,caption\n" + rows)
    first, second = str(error.value).splitlines()
    assert "lines 2, 3, 4, 5, 6 and 15 more, key 'caption': is empty" in first and "line 22" in second
