"""JSON of captions: the layouts that people have, and errors that name the place."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from lavis_lite.datasets.annotations import AnnotationError, check_caption_records, read_records

PAIRS = [("a.jpg", "one"), ("b/c.jpg", "two")]
RECORDS = [{"image": image, "caption": caption} for image, caption in PAIRS]
LINES = "\n".join(map(json.dumps, RECORDS))
COCO = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b/c.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "one"},
        {"id": 2, "image_id": 9, "caption": "two"},
    ],
}
KARPATHY = {
    "images": [
        {"filename": "a.jpg", "sentences": [{"raw": "one"}], "cocoid": 7},
        {"filepath": "b", "filename": "c.jpg", "sentences": [{"raw": "two"}], "cocoid": 9},
    ]
}


def read(path: Path, content: Any) -> list[dict[str, Any]]:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return check_caption_records(read_records(path), "any")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", RECORDS),
        ("object.json", dict(PAIRS)),
        ("lists.json", {image: [caption] for image, caption in PAIRS}),
        ("kohya.json", {image: {"caption": caption, "tags": "x, y"} for image, caption in PAIRS}),
        ("coco.json", COCO),
        ("karpathy.json", KARPATHY),
        ("data.json", {"info": {}, "data": RECORDS}),
        ("capitals.json", [{"File Name": image, "Caption": caption} for image, caption in PAIRS]),
        ("lines.jsonl", LINES),
        ("lines.ndjson", LINES + "\n\n"),
        ("lines.json", LINES),
        ("lines.txt", "\ufeff" + LINES.replace("\n", "\r\n")),
        ("list.jsonl", json.dumps(RECORDS, indent=1)),
        ("object.jsonl", json.dumps(dict(PAIRS), indent=1)),
    ],
)
def test_every_layout_gives_the_same_records(tmp_path, name, content):
    records = read(tmp_path / name, content)
    assert [(record["image"], record["caption"]) for record in records] == [(i, [c]) for i, c in PAIRS]


@pytest.mark.parametrize("content", [COCO, KARPATHY])
def test_the_numbers_of_images_come_along(tmp_path, content):
    assert [record["image_id"] for record in read(tmp_path / "a.json", content)] == [7, 9]


def test_one_record_alone_is_no_object_of_file_names(tmp_path):
    assert read(tmp_path / "a.json", RECORDS[0])[0]["image"] == "a.jpg"
    assert read(tmp_path / "a.jsonl", json.dumps(RECORDS[0]))[0]["image"] == "a.jpg"


def test_images_of_coco_without_a_caption_are_named(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert len(read(tmp_path / "a.json", {**COCO, "annotations": COCO["annotations"][:1]})) == 1
    assert "1 images have no caption and are left out: b/c.jpg" in caplog.text


def test_line_separators_within_a_text_stay(tmp_path):
    text = "a\u2028b\nc\rd\x85e"
    assert read(tmp_path / "a.json", json.dumps({"a.jpg": text}, ensure_ascii=False))[0]["caption"] == [text]
    line = json.dumps({"image": "a.jpg", "caption": text}, ensure_ascii=False)
    assert read(tmp_path / "a.jsonl", line)[0]["caption"] == [text]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"a.jpg": "one", "a.jpg": "two"}', "has more than one entry for 'a.jpg'"),
        (
            "a.json",
            '[{"image": "a"}, {"image": "b", "image": "c"}]',
            "annotation 1: has the key 'image' more than",
        ),
        (
            "a.jsonl",
            '{"image": "a", "caption": "x"}\n{"image": "b", "image": "c"}',
            "line 2: has the key 'image'",
        ),
        ("a.jsonl", LINES + '\n\n{"image": "d.jpg"', "line 4: is not valid JSON: Expecting ',' delimiter"),
        (
            "a.json",
            LINES + '\n{"image": "d.jpg", "caption": 7}',
            "line 3, key 'caption': expected a text, found 7",
        ),
        ("a.json", LINES + "\n[1]", "line 3: expected an object"),
        ("a.json", '{"a.jpg": "x"', "is not valid JSON: .* at line 1, column 14"),
        ("a.json", "[" * 100_000, "is not valid JSON: maximum recursion depth"),
        ("a.json", '[{"n": ' + "9" * 5000 + "}]", "is not valid JSON: Exceeds the limit"),
        ("a.json", '{"a.jpg": null}', r"key 'a.jpg', key 'caption': has no value \(null\)"),
        ("a.json", '{"a.jpg": NaN}', "key 'a.jpg', key 'caption': expected a text, found nan"),
        (
            "a.json",
            r'{"a.jpg": "cut \ud83d"}',
            r"key 'a.jpg', key 'caption': holds half a character .*\\ud83d",
        ),
        ("a.json", r'{"a.jpg": "a \u0000 b"}', "holds a NUL character"),
        ("a.json", r'{"\ud83d.jpg": "x"}', "holds a character that no file name can have"),
        ("a.json", r'{"a\u0000.jpg": "x"}', "holds a character that no file name can have"),
        ("a.json", {"00": {"tags": "x, y"}}, "key '00': has no 'caption'.*its keys are tags"),
        ("a.json", [{"image_id": 1, "caption": "x"}], "annotation 0: has no 'image'.*file of results"),
        ("a.json", {"image": {"0": "a.jpg"}, "caption": {"0": "x"}}, "holds columns, not records"),
        (
            "a.json",
            {**COCO, "annotations": [{"image_id": 7, "caption": "x"}, {"image_id": 8, "caption": "x"}]},
            "annotation 1: its image_id 8 is that of no image",
        ),
        (
            "a.json",
            {**COCO, "annotations": [{"image_id": 7, "bbox": []}]},
            "has no 'caption'. COCO's captions",
        ),
        (
            "a.json",
            {**COCO, "images": [*COCO["images"], {"id": 7, "file_name": "d.jpg"}]},
            "image 2: has the id 7",
        ),
        (
            "a.json",
            {"images": [{"filename": "a.jpg", "sentences": [{"tokens": []}]}]},
            "image 0: expected 'sent",
        ),
        ("a.json", '"text"', "expected a list or an object, found str"),
        ("a.json", " ", "holds no annotation"),
    ],
)
def test_what_would_lose_or_change_something_is_refused_with_its_place(tmp_path, name, content, message):
    with pytest.raises(AnnotationError, match=rf"{name}: .*{message}"):
        read(tmp_path / name, content)


@pytest.mark.parametrize("name", ["12:30.jpg", "c:d.jpg", "a\\b.jpg"])
def test_a_colon_or_a_backslash_is_no_way_out_of_the_folder(tmp_path, name):
    assert read(tmp_path / "a.json", {name: "x"})[0]["image"] == name.replace("\\", "/")


@pytest.mark.parametrize(
    "name", ["C:\\photos\\a.jpg", "c:/a.jpg", "..\\a.jpg", "\\\\server\\a.jpg", "b/../../a.jpg"]
)
def test_paths_of_windows_do_not_leave_the_folder_either(tmp_path, name):
    with pytest.raises(AnnotationError, match="leaves the image folder"):
        read(tmp_path / "a.json", {name: "x"})
