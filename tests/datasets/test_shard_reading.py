"""Reading shards: every member is part of a sample or is named, and damage costs only what it touches."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from shards import jpeg

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.datasets.web import samples as grouping
from lavis_lite.datasets.web import sources
from lavis_lite.datasets.web.shards import (
    Shard,
    ShardError,
    UnusedMember,
    count_samples,
    raw_samples,
    read_shard,
)

Member = tuple[str, bytes] | tuple[str, bytes, dict[str, Any]]


def tar(members: Sequence[Member], tar_format: int = tarfile.USTAR_FORMAT) -> bytes:
    """Return an archive of (name, content[, further fields of the header])."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tar_format) as archive:
        for name, content, *fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields[0].items() if fields else ():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def pair(key: str) -> Iterator[Member]:
    yield f"{key}.jpg", jpeg(len(key))
    yield f"{key}.txt", f"text {key}".encode()


def pairs(*keys: str) -> list[Member]:
    return [member for key in keys for member in pair(key)]


def keys_and_errors(path: Path) -> tuple[list[str], list[str]]:
    """Return the keys of a shard's samples, each with its suffixes, and what is said of the rest."""
    errors: list[str] = []
    read = [
        ".".join([raw["__key__"], *sorted(suffix for suffix in raw if suffix[:2] != "__")])
        for raw in raw_samples(Shard(str(path)), errors.append)
    ]
    return read, [error.removeprefix(f"{path}: ") for error in errors]


@pytest.fixture
def read(tmp_path):
    def write_and_read(content: bytes | list[Member], name: str = "a.tar") -> tuple[list[str], list[str]]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else tar(content))
        return keys_and_errors(path)

    return write_and_read


WHOLE = [f"{number:06d}.jpg.txt" for number in range(50)]
FIFTY = tar(pairs(*(f"{number:06d}" for number in range(50))))


def header_of(content: bytes, name: str) -> int:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return archive.getmember(name).offset


# Damage


def test_a_flipped_bit_in_a_header_costs_that_member_alone(read):
    content = bytearray(FIFTY)
    content[header_of(FIFTY, "000003.jpg") + 150] ^= 1
    samples, errors = read(bytes(content))
    assert set(WHOLE) - set(samples) == {"000003.jpg.txt"} and "000003.txt" in samples
    assert len(errors) == 1 and "no valid header at byte" in errors[0]
    assert "(it reads '000003.jpg'), after 000002.txt" in errors[0]


@pytest.mark.parametrize("length", [1, 7, 512])
def test_bytes_lost_or_added_inside_a_member_cost_that_member_alone(read, length):
    place = header_of(FIFTY, "000003.jpg") + 512 + 100
    for content in (
        FIFTY[:place] + FIFTY[place + length :],
        FIFTY[:place] + b"\xaa" * length + FIFTY[place:],
    ):
        samples, errors = read(content)
        assert set(WHOLE) - set(samples) == {"000003.jpg.txt"} and "000003.txt" in samples
        assert any("000003.jpg is not used: bytes" in error for error in errors)


def test_a_cut_at_any_place_is_named_and_costs_what_lies_behind_it(read):
    end = header_of(FIFTY, "000005.jpg")
    for cut in (end, end + 100, end + 511, end + 512, end + 700):
        samples, errors = read(FIFTY[:cut])
        assert samples == WHOLE[:5]
        assert len(errors) == 1 and ("end-of-archive" in errors[0] or "breaks off" in errors[0])


def test_zeros_over_a_header_do_not_end_the_archive(read):
    place = header_of(FIFTY, "000003.jpg")
    samples, errors = read(FIFTY[:place] + bytes(512) + FIFTY[place + 512 :])
    assert set(WHOLE) - set(samples) == {"000003.jpg.txt"}
    assert any(f"has zeros from byte {place}" in error for error in errors)


def test_archives_joined_end_to_end_are_read_and_named(read):
    samples, errors = read(tar(pairs("a", "b")) + tar(pairs("c")))
    assert samples == ["a.jpg.txt", "b.jpg.txt", "c.jpg.txt"]
    assert len(errors) == 1 and "archives joined end to end" in errors[0]


def test_many_damages_are_counted_after_the_first_ones(read):
    content = bytearray(FIFTY)
    for number in range(30):
        content[header_of(FIFTY, f"{number:06d}.jpg") + 150] ^= 1
    samples, errors = read(bytes(content))
    assert len([name for name in samples if ".jpg" in name]) == 20
    assert len(errors) == 21 and errors[-1] == "10 further damages"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>sign in</html>", "is a web page"),
        (b"\n <html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "is a pointer of git-lfs"),
        (b"no tar", "is no tar file"),
        (bz2.compress(FIFTY), r"compressed with bzip2: decompress it \(bunzip2\)"),
        (lzma.compress(FIFTY), r"compressed with xz: decompress it \(unxz\)"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "compressed with zstd"),
        (b"PK\x03\x04" + bytes(600), "is a zip archive"),
        (gzip.compress(mtime=0, data=b"no tar"), "is gzipped, and is no tar file"),
    ],
)
def test_what_is_no_tar_is_named_as_what_it_is_and_is_an_error_where_one_is_asked_for(
    tmp_path, content, message
):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    errors: list[str] = []
    assert not list(raw_samples(Shard(str(path)), errors.append)) and len(errors) == 1
    with pytest.raises(ShardError, match=message):
        list(raw_samples(Shard(str(path)), pytest.fail, whole_or_error=True))
    with pytest.raises(ConfigError, match=message):
        count_samples(Shard(str(path)))


def test_a_file_of_zeros_is_not_taken_for_an_empty_archive(read):
    assert read(bytes(10240)) == ([], [])
    _, (error,) = read(bytes(3 << 20))
    assert "only zeros" in error


# Gzip


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_gzip_is_known_by_its_content(read, tmp_path, name):
    assert read(gzip.compress(FIFTY), name) == (WHOLE, [])
    assert count_samples(Shard(str(tmp_path / name))) == 50


def test_gzip_in_several_parts_is_read_to_its_end(read):
    assert read(gzip.compress(FIFTY[:7000]) + gzip.compress(FIFTY[7000:]) + bytes(512)) == (WHOLE, [])


def test_gzip_that_breaks_off_keeps_its_good_part(read):
    packed = gzip.compress(FIFTY, compresslevel=1)
    samples, errors = read(packed[: len(packed) // 2])
    assert 10 < len(samples) < 45 and samples[:-1] == WHOLE[: len(samples) - 1]
    assert errors[-1] == "its gzip data breaks off"


def test_damaged_gzip_keeps_what_comes_before_and_is_named(read):
    packed = bytearray(gzip.compress(FIFTY, compresslevel=1))
    packed[len(packed) // 2] ^= 255
    samples, errors = read(bytes(packed))
    assert len(samples) > 10 and WHOLE[:10] == samples[:10]
    assert "its gzip data is damaged" in errors[-1]


def test_other_bytes_behind_gzip_are_named(read):
    assert read(gzip.compress(FIFTY) + b"junk") == (WHOLE, ["other bytes follow its gzip data"])


# Bombs


def test_a_sparse_member_of_six_gigabytes_is_named_and_not_unpacked(read):
    header = tarfile.TarInfo("a.jpg")
    header.type, header.size = tarfile.GNUTYPE_SPARSE, 512
    sparse = header.tobuf(tarfile.GNU_FORMAT) + bytes(512)
    pax = tar([("b.jpg", b"x", {"pax_headers": {"GNU.sparse.realsize": str(6 << 30)}})], tarfile.PAX_FORMAT)
    samples, errors = read(sparse + pax[:-1024] + tar(pairs("c")))
    assert samples == ["c.jpg.txt"]
    assert "2 members are not used (a sparse file: pack without --sparse): a.jpg, b.jpg" in errors


def test_a_size_is_believed_only_within_the_limit_and_within_the_file(read):
    for size in (grouping.MAX_MEMBER_BYTES, 1 << 60):
        header = tarfile.TarInfo("a.jpg")
        header.size = size
        samples, errors = read(header.tobuf(tarfile.GNU_FORMAT) + b"few bytes")
        assert samples == [] and "breaks off in a.jpg, after 9 of its" in errors[0]


def test_a_member_over_the_limit_is_named_and_skipped(read, monkeypatch):
    monkeypatch.setattr(grouping, "MAX_MEMBER_BYTES", 1 << 20)
    samples, errors = read([("a.jpg", bytes((1 << 20) + 1)), *pairs("b")])
    assert samples == ["b.jpg.txt"] and errors == ["1 member is not used (more than 1 MiB): a.jpg"]


def test_a_sample_over_the_limit_keeps_what_fits(read, monkeypatch):
    monkeypatch.setattr(grouping, "MAX_SAMPLE_BYTES", 1 << 20)
    samples, errors = read([("a.jpg", b"x" * 900_000), ("a.txt", b"a"), ("a.png", b"x" * 900_000)])
    assert samples == ["a.jpg.txt"] and errors == [
        "1 member is not used (a sample of more than 1 MiB): a.png"
    ]


def test_gzip_that_grows_too_much_is_ended(read, monkeypatch):
    monkeypatch.setattr(sources, "FREE_EXPANSION_BYTES", 1 << 20)
    samples, errors = read(gzip.compress(tar([*pairs("a"), ("b.jpg", bytes(8 << 20)), *pairs("c")])))
    assert samples == ["a.jpg.txt"] and "grows to more than 50 times its size" in errors[-1]


@pytest.mark.slow
def test_an_archive_made_to_be_searched_for_ever_is_given_up(read):
    started = time.process_time()
    samples, errors = read(tar(pairs("a"))[:-1024] + b"ustar\0" * 500_000)
    assert samples == ["a.jpg.txt"] and "the rest is lost" in errors[-1]
    assert time.process_time() - started < 20


# Which members belong together


def test_names_with_dots_are_not_torn_in_two(read):
    assert read(pairs("photo.v1.2", "photo.v1.3", "x.y/a")) == (
        ["photo.v1.2.jpg.txt", "photo.v1.3.jpg.txt", "x.y/a.jpg.txt"],
        [],
    )


def test_an_archive_that_is_not_sorted_gives_whole_samples(read):
    images = [("a.jpg", jpeg(1)), ("b.jpg", jpeg(2)), ("c.jpg", jpeg(3))]
    texts = [("a.txt", b"a"), ("b.txt", b"b"), ("c.txt", b"c")]
    fields = [("a.json", b"{}"), ("b.json", b"{}"), ("c.json", b"{}")]
    whole = ["a.jpg.json.txt", "b.jpg.json.txt", "c.jpg.json.txt"]
    for members in (images + texts + fields, texts + fields + images, images + texts[::-1] + fields):
        samples, errors = read(members)
        assert sorted(samples) == whole and not errors


def test_what_lies_too_far_apart_is_named_with_what_to_do(read, tmp_path, monkeypatch):
    monkeypatch.setattr(grouping, "MAX_WAITING_BYTES", 4500)
    samples, errors = read(
        [*((f"{key}.jpg", jpeg(1)) for key in "abc"), *((f"{key}.txt", b"t") for key in "abc")]
    )
    assert sorted(samples) == ["a.jpg", "b.jpg.txt", "c.jpg.txt"]
    assert errors == [
        "1 member is not used (far from the rest of its sample: sort the archive (tar --sort=name)): a.txt"
    ]
    assert count_samples(Shard(str(tmp_path / "a.tar"))) == 3


def test_suffixes_in_capitals_are_suffixes(read):
    assert read([("a.JPG", jpeg(1)), ("a.Txt", b"a")]) == (["a.jpg.txt"], [])


def test_a_second_member_of_a_name_is_named(read):
    members = [("a.jpg", jpeg(1)), ("a.JPG", jpeg(2)), ("a.txt", b"a"), *pairs("b"), ("a.txt", b"other")]
    samples, errors = read(members)
    assert samples == ["a.jpg.txt", "b.jpg.txt"]
    assert errors == ["2 members are not used (a second member of this name): a.JPG, a.txt"]


def test_an_addition_to_a_sample_is_no_sample_of_its_own(read):
    samples, errors = read([("a.jpg", jpeg(1)), ("a.mask.png", jpeg(1)), ("a.txt", b"a"), *pairs("b")])
    assert samples == ["a.jpg.txt", "b.jpg.txt"]
    assert (
        len(errors) == 1
        and errors[0].startswith("1 member is not used (an addition")
        and "a.mask.png" in errors[0]
    )


def test_images_alone_and_texts_alone_are_samples(read):
    assert read([("a.b.jpg", jpeg(1)), ("a.jpg", jpeg(1)), ("c.txt", b"c")]) == (
        ["a.b.jpg", "a.jpg", "c.txt"],
        [],
    )


# What is not used


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x.cls", ".cls is neither an image nor .txt or .json"),
        ("README", "without a suffix it is neither an image nor .txt or .json"),
        ("x.heic", "a .heic image, which is not read here: convert it, to .jpg for example"),
        ("._x.jpg", "metadata that macOS adds"),
        ("__MACOSX/x.jpg", "metadata that macOS adds"),
        (".jpg", "nothing before the dot of its name"),
        ("../x.jpg", "a name that leaves its folder"),
        ("y/../../x.jpg", "a name that leaves its folder"),
        ("y\\..\\..\\x.jpg", "a name that leaves its folder"),
        ("/x.jpg", "an absolute path as its name: pack with relative paths"),
        ("C:\\x.jpg", "an absolute path as its name: pack with relative paths"),
        ("\\\\server\\x.jpg", "an absolute path as its name: pack with relative paths"),
    ],
)
def test_a_member_that_is_not_used_is_named_with_the_reason(read, name, reason):
    samples, errors = read([(name, jpeg(1)), *pairs("a")])
    assert samples == ["a.jpg.txt"] and errors == [f"1 member is not used ({reason}): {name}"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "a symbolic link: pack with tar --dereference"),
        (tarfile.LNKTYPE, "a hard link: pack with tar --hard-dereference"),
        (tarfile.CHRTYPE, "a character device"),
        (tarfile.BLKTYPE, "a block device"),
        (tarfile.FIFOTYPE, "a named pipe"),
        (b"Z", "a member of the unknown type b'Z'"),
    ],
)
def test_links_and_devices_are_named_and_never_followed(read, kind, reason):
    samples, errors = read([("x.jpg", b"", {"type": kind, "linkname": "/dev/zero"}), *pairs("a")])
    assert samples == ["a.jpg.txt"] and errors == [f"1 member is not used ({reason}): x.jpg"]


def test_a_name_with_a_nul_is_named_and_its_sample_not_used(read):
    samples, errors = read(
        tar([("a.jpg", jpeg(1), {"pax_headers": {"path": "b\0.jpg"}})], tarfile.PAX_FORMAT)
    )
    assert samples == [] and errors == ["1 member is not used (a NUL character in its name): b\\x00.jpg"]


def test_folders_hold_nothing_and_are_no_loss(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(tar([("x", b"", {"type": tarfile.DIRTYPE}), *pairs("x/a")]))
    assert keys_and_errors(path) == (["x/a.jpg.txt"], [])
    (folder, _) = read_shard(Shard(str(path)))
    assert folder == UnusedMember("x/", "a folder", is_loss=False)


def test_strange_names_are_shown_as_one_line(read):
    _, (error,) = read([("x\n\x1b[31mred.cls", b"")])
    assert "\n" not in error and "\x1b" not in error and r"x\n\x1b[31mred.cls" in error


def test_names_that_are_not_utf8_become_keys_that_can_be_written(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        info = tarfile.TarInfo("café.jpg")
        archive.addfile(info)
    (tmp_path / "a.tar").write_bytes(stream.getvalue())
    (raw,) = raw_samples(Shard(str(tmp_path / "a.tar")), pytest.fail)
    assert raw["__key__"].encode() == rb"caf\xe9"


def test_many_unused_members_are_one_line_with_their_number(read):
    _, errors = read([*pairs("a"), *((f"{number}.cls", b"1") for number in range(200))])
    assert errors == [
        "200 members are not used (.cls is neither an image nor .txt or .json): "
        "0.cls, 1.cls, 2.cls, 3.cls, 4.cls and 195 more"
    ]


def test_no_end_of_reasons_fills_the_memory(read):
    _, errors = read([(f"a.{number}x", b"") for number in range(200)])
    assert len(errors) == grouping.MAX_REASONS + 1 and errors[-1].startswith(
        "150 members are not used (further"
    )


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read(read, tar_format):
    key = "folder/" * 40 + "größe"
    assert read(tar(pairs(key), tar_format)) == ([f"{key}.jpg.txt"], [])


def test_a_damaged_long_name_is_named_with_the_short_one(read):
    content = tar(pairs("folder/" * 40 + "größe", "b"), tarfile.PAX_FORMAT)
    place = content.index(b" path=") - 1
    samples, errors = read(content[:place] + b"x" + content[place + 1 :])
    assert "b.jpg.txt" in samples
    assert errors[0].startswith("folder/") and errors[0].endswith(
        "is not used: its extended header is damaged"
    )
