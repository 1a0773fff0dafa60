"""One bad sample never stops a crawl: it is counted with its reason, and its neighbors are cleaned."""

from __future__ import annotations

import io
import json
import os
import tarfile
from types import SimpleNamespace

import pytest
from cleaning import Letters, assert_all_accounted_for, clean, json_of, reasons_of, rows_of
from PIL import Image
from shards import jpeg, write_tar

from lavis_lite.capfilt.sources import Input, Sample, Unit, from_dataset, from_folder, from_shards
from lavis_lite.datasets.web.shards import list_shards, raw_samples

GOOD = {"key": "good", "jpg": jpeg(1), "txt": b"a good text"}


def bad(key: str = "bad", **members: bytes) -> dict[str, bytes]:
    return {"key": key, "jpg": jpeg(2), "txt": b"a text", **members}


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (bad(json=b"{"), "invalid json"),
        (bad(json=b'["a", "list"]'), "invalid json: its json is a list, not an object"),
        (bad(json=b"[" * 200_000), "invalid json"),
        (bad(json=b'{"a":' * 950 + b"1" + b"}" * 950), "invalid json"),
        (
            bad(json=b'{"caption": "one", "caption": "two"}'),
            "invalid json: its json cannot be read (the key 'caption' occurs twice)",
        ),
        (bad(json='{"a": "caf\xe9"}'.encode("latin-1")), "invalid json"),
        (bad(json=b'{"a": ' + b"9" * 5000 + b"}"), "invalid json"),
        (bad(json=rb'{"url": "http://x/\ud83d"}'), "unusable url: it has half of a surrogate pair"),
        (bad(txt="caf\xe9".encode("latin-1")), "unusable text: its .txt is not UTF-8 (byte 0xe9 at 3)"),
        (bad(txt="it\x92s".encode("latin-1")), "unusable text: its .txt is not UTF-8 (byte 0x92 at 2)"),
        (bad(txt="a dog".encode("utf-16-le")), "unusable text: its .txt has zero bytes"),
        (bad(txt=b"\xed\xa0\xbd"), "unusable text: its .txt is not UTF-8"),
        (bad(jpg=jpeg(1)[:100]), "unreadable image: bad"),
        (bad(jpg=b"<html>please sign in</html>"), "unreadable image: bad"),
        (bad(jpg=b""), "unreadable image: bad"),
        ({"key": "bad", "txt": b"a text"}, "no image: bad"),
        (bad(json=b'{"opt_out": true}'), "opted out"),
    ],
)
def test_a_bad_sample_is_counted_with_its_reason_and_the_others_are_cleaned(sample, reason, tmp_path):
    write_tar(tmp_path / "crawl" / "a.tar", [sample, GOOD])
    write_tar(tmp_path / "crawl" / "b.tar", [GOOD])
    output, failed = clean(tmp_path / "crawl", tmp_path / "out")
    assert not failed
    assert reason in reasons_of(output)["bad"]
    assert [row["text"] for row in rows_of(output) if row["kept"]] == ["a good text"] * 2
    assert_all_accounted_for(output, 3)


@pytest.mark.parametrize(
    ("json", "reason"),
    [
        (rb'{"caption": "half a pair \ud83d"}', "unusable text: 'caption' has half of a surrogate pair"),
        (rb'{"caption": ["whole", "half \udc00"]}', "half of a surrogate pair"),
        (b'{"caption": 5}', "unusable text: 'caption' holds int, not text"),
        (b'{"caption": {"en": "a dog"}}', "unusable text: 'caption' holds dict, not text"),
        (b'{"caption": [["a dog"]]}', "unusable text: 'caption' holds list, not text"),
        (b'{"caption": true}', "unusable text: 'caption' holds bool, not text"),
    ],
)
def test_a_json_field_that_holds_no_usable_text_is_a_reason(json, reason, tmp_path):
    write_tar(tmp_path / "a.tar", [bad(json=json), {**GOOD, "json": json_of(caption="a good text")}])
    output, failed = clean(tmp_path / "a.tar", tmp_path / "out", text_key="caption")
    assert not failed and reason in reasons_of(output)["bad"]
    assert_all_accounted_for(output, 2)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"], ids=lambda encoding: str(encoding)
)
def test_a_text_whose_encoding_is_marked_is_read_right(encoding, tmp_path):
    write_tar(tmp_path / "a.tar", [bad(txt="ein süßer 🐶".encode(encoding))])
    output, _ = clean(tmp_path / "a.tar", tmp_path / "out")
    assert [row["text"] for row in rows_of(output)] == ["ein süßer 🐶"]


def test_a_missing_value_is_no_text_and_no_wish_to_be_left_out(tmp_path):
    about = b'{"caption": NaN, "opt_out": NaN, "similarity": NaN, "url": null}'
    write_tar(
        tmp_path / "a.tar", [bad(json=about), bad("nulls", json=b'{"caption": null}'), bad("empty", json=b"")]
    )
    output, _ = clean(tmp_path / "a.tar", tmp_path / "out", text_key="caption")
    (marker,) = output.markers().values()
    assert (marker["filtered"], marker["failed"], marker["texts"]) == (3, 0, {})


def test_what_the_json_says_besides_reaches_the_output_unchanged(tmp_path):
    about = rb'{"alt": "half \ud83d", "width": 5, "note": "\u2028"}'
    write_tar(tmp_path / "a.tar", [bad(json=about)])
    output, _ = clean(tmp_path / "a.tar", tmp_path / "out")
    (raw,) = raw_samples(list_shards([str(output.folder / "shards")])[0], pytest.fail)
    after = json.loads(raw["json"])
    assert {name: after[name] for name in ("alt", "width", "note")} == json.loads(about)


def test_an_image_that_takes_too_much_memory_fails_alone(tmp_path, monkeypatch):
    def prepare(image: Image.Image) -> None:
        if image.size == (7, 7):
            raise MemoryError

    monkeypatch.setattr(Letters, "on_image", staticmethod(prepare))
    small = io.BytesIO()
    Image.new("RGB", (7, 7)).save(small, "PNG")
    write_tar(tmp_path / "a.tar", [{"key": "large", "png": small.getvalue(), "txt": b"x"}, GOOD])
    output, failed = clean(tmp_path / "a.tar", tmp_path / "out")
    assert not failed and reasons_of(output)["large"].startswith("out of memory")
    assert_all_accounted_for(output, 2)


def test_an_image_that_its_processor_cannot_take_fails_alone(tmp_path, monkeypatch):
    def prepare(image: Image.Image) -> None:
        if image.size == (7, 7):
            raise ZeroDivisionError("no pixels left")

    monkeypatch.setattr(Letters, "on_image", staticmethod(prepare))
    small = io.BytesIO()
    Image.new("RGB", (7, 7)).save(small, "PNG")
    write_tar(tmp_path / "a.tar", [{"key": "odd", "png": small.getvalue(), "txt": b"x"}, GOOD])
    output, _ = clean(tmp_path / "a.tar", tmp_path / "out")
    assert reasons_of(output) == {"odd": "unusable image: ZeroDivisionError: no pixels left"}


@pytest.mark.parametrize(
    "error", [MemoryError(), TypeError("not a number"), OSError("disk"), RecursionError()]
)
def test_any_error_of_a_unit_sets_it_aside_and_the_next_call_does_it(error, tmp_path, monkeypatch):
    for name in "ab":
        write_tar(tmp_path / "crawl" / f"{name}.tar", [{**GOOD, "key": name}])

    def fail(request) -> None:
        if "a" in request.keys:
            raise error

    monkeypatch.setattr(Letters, "on_texts", staticmethod(fail))
    output, failed = clean(tmp_path / "crawl", tmp_path / "out")
    assert failed == ["a"] and list(output.markers()) == ["b"]
    assert type(error).__name__ in (output.folder / "failed" / "a.txt").read_text()
    monkeypatch.undo()
    output, failed = clean(tmp_path / "crawl", tmp_path / "out")
    assert not failed and list(output.markers()) == ["a", "b"]


def test_members_that_would_leave_their_folder_get_safe_names(tmp_path):
    keys = [
        "../../up",
        "/abs/olute",
        "a/../../b",
        "c:\\d",
        "new\nline",
        "ok/deep",
        ".hidden",
        "x" * 240,
        "twice",
    ]
    keys += ["twice", "v1.2"]

    def read(damage):
        for number, key in enumerate(keys):
            yield Sample(key, {"jpg": jpeg(number), "txt": f"text {number}".encode()}, {})

    output, failed = clean(Input([Unit("a", read, "/somewhere/a.tar")], "txt"), tmp_path / "out")
    assert not failed
    with tarfile.open(output.folder / "shards" / "a.tar") as tar:
        members = tar.getnames()
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert len(set(members)) == len(members) == 3 * len(keys) and "ok/deep.jpg" in members
    files = [path for path in (tmp_path / "unpacked").rglob("*") if path.is_file()]
    assert len(files) == len(members)
    about = [json.loads(path.read_text()) for path in files if path.suffix == ".json"]
    assert {own["capfilt_key"] for own in about if "capfilt_key" in own} == {*keys} - {"ok/deep"}
    again = list(raw_samples(list_shards([str(output.folder / "shards")])[0], pytest.fail))
    assert [raw["txt"].decode() for raw in again] == [f"text {number}" for number in range(len(keys))]
    assert [row["key"] for row in rows_of(output)] == [raw["__key__"] for raw in again]


def test_a_name_that_is_not_utf_8_is_cleaned_like_any_other(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for suffix, content in (("jpg", jpeg(1)), ("txt", b"a cafe")):
            info = tarfile.TarInfo(f"caf\xe9.{suffix}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    output, failed = clean(tmp_path / "a.tar", tmp_path / "out")
    assert not failed
    (row,) = rows_of(output)
    assert row["text"] == "a cafe" and row["kept"] and row["key"].startswith("caf_")


def test_a_folder_with_names_and_texts_of_other_encodings_is_cleaned(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "good.jpg").write_bytes(jpeg(1))
    (photos / "good.txt").write_bytes("a text\r\nein süßer Hund\u2028 hier".encode())
    (photos / "latin.jpg").write_bytes(jpeg(2))
    (photos / "latin.txt").write_bytes(b"it\x92s")
    (photos / os.fsdecode(b"caf\xe9.jpg")).write_bytes(jpeg(3))
    (photos / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"a cafe")
    output, failed = clean(from_folder(photos, unit_size=100), tmp_path / "out")
    assert not failed
    assert [row["text"] for row in rows_of(output) if row["kept"]] == [
        "a cafe",
        "a text",
        "ein süßer Hund hier",
    ]
    (reason,) = reasons_of(output).values()
    assert reason.startswith("unusable text: its latin.txt is not UTF-8 (byte 0x92 at 2)")
    assert_all_accounted_for(output, 3)


def test_files_of_a_data_set_that_cannot_be_read_fail_alone(tmp_path):
    (tmp_path / "good.jpg").write_bytes(jpeg(1))
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(Image.MAX_IMAGE_PIXELS * 100)
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    names = ["good.jpg", "huge.jpg", "pipe.jpg", "zero.jpg", "folder.jpg", "gone.jpg", "nul\0.jpg"]
    annotations = [{"image": name, "caption": "a text"} for name in names]
    dataset = SimpleNamespace(annotations=annotations, image_root=tmp_path)
    output, failed = clean(from_dataset(dataset, unit_size=100), tmp_path / "out")
    assert not failed
    said = ["more than an image of", "named pipe", "device", "folder", "no such file", "cannot be opened"]
    for reason, part in zip(reasons_of(output).values(), said, strict=True):
        assert reason.startswith("no image: ") and part in reason
    assert_all_accounted_for(output, len(names))


def test_a_unit_of_a_folder_that_takes_too_much_memory_says_what_to_set(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        (photos / f"{number}.jpg").write_bytes(jpeg(number))
    monkeypatch.setattr("lavis_lite.capfilt.sources.MAX_UNIT_BYTES", 1000)
    output, failed = clean(from_folder(photos, unit_size=10), tmp_path / "out")
    assert failed == ["000000"]
    assert "Set a smaller shard_size" in (output.folder / "failed" / "000000.txt").read_text()


@pytest.mark.parametrize(
    "content", [b"", b"<html>please sign in</html>", b"\0" * 100, b"PK\x03\x04" + b"x" * 3000]
)
def test_something_other_than_a_tar_is_a_failed_unit(content, tmp_path):
    write_tar(tmp_path / "crawl" / "a.tar", [GOOD])
    (tmp_path / "crawl" / "login.tar").write_bytes(content)
    output, failed = clean(tmp_path / "crawl", tmp_path / "out")
    assert failed == ["login"] and list(output.markers()) == ["a"]
    assert "login.tar" in (output.folder / "failed" / "login.txt").read_text()
    write_tar(tmp_path / "crawl" / "login.tar", [GOOD])
    output, failed = clean(tmp_path / "crawl", tmp_path / "out")
    assert not failed and list(output.markers()) == ["a", "login"]


def test_an_empty_shard_is_done_and_named(tmp_path):
    write_tar(tmp_path / "crawl" / "a.tar", [GOOD])
    write_tar(tmp_path / "crawl" / "empty.tar", [])
    output, failed = clean(tmp_path / "crawl", tmp_path / "out")
    assert not failed
    assert any("holds no samples" in text for text in output.markers()["empty"]["damage"])


def test_a_shard_listed_twice_is_cleaned_once(tmp_path, monkeypatch, caplog):
    write_tar(tmp_path / "crawl" / "a.tar", [GOOD])
    (tmp_path / "link.tar").symlink_to(tmp_path / "crawl" / "a.tar")
    monkeypatch.chdir(tmp_path)
    given = from_shards(list_shards(["crawl/a.tar", str(tmp_path / "crawl" / "a.tar"), "link.tar"]))
    assert [unit.name for unit in given.units] == ["a"]
    assert "listed twice" in caplog.text
