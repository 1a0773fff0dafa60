"""Which files of a folder are images, and what becomes of the others."""

from __future__ import annotations

import logging
import os
import socket
import types
from pathlib import Path

import pytest
import torch
from PIL import Image

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.media.image_files import find_images, list_folder, read_images


def size_of(image: Image.Image) -> torch.Tensor:
    """Stand in for an image processor."""
    return torch.tensor(image.size)


def draw(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(path, "JPEG")


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images([folder])]


HIDDEN = [
    "._a.jpg",
    ".hidden.png",
    ".ipynb_checkpoints/a-checkpoint.jpg",
    ".thumbnails/normal/0f.png",
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
    "album/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg",
    "__MACOSX/album/a.jpg",
    "#recycle/old.jpg",
    "$RECYCLE.BIN/old.jpg",
]


@pytest.mark.parametrize("name", HIDDEN)
def test_what_systems_leave_in_folders_is_left_out_and_counted(tmp_path, caplog, name):
    draw(tmp_path / "a.jpg", tmp_path / name)
    (tmp_path / "Thumbs.db").touch()
    (tmp_path / ".DS_Store").touch()
    with caplog.at_level(logging.INFO):
        assert names(tmp_path) == ["a.jpg"]
        assert names(tmp_path) == ["a.jpg"]
    assert caplog.text.count("Left out hidden files and folders: 1 (") == 1  # once, not at every listing


@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_file_that_is_named_is_read(tmp_path, name):
    draw(tmp_path / name)
    assert find_images([tmp_path / name]) == [tmp_path / name]


def test_a_hidden_folder_that_is_named_is_listed(tmp_path):
    draw(tmp_path / ".cache" / "photos" / "a.jpg")
    assert names(tmp_path / ".cache") == ["photos/a.jpg"]
    assert names(tmp_path / ".cache" / "photos") == ["a.jpg"]


def test_the_order_is_that_of_the_bytes_of_the_paths(tmp_path):
    paths = ["B.jpg", "a-b.jpg", "a.jpg", "a/b.jpg", "a/z/c.jpg", "a0.jpg", "\u00e9.jpg", "\U0001f600.jpg"]
    draw(*(tmp_path / path for path in reversed(paths)))
    assert names(tmp_path) == paths


def test_a_name_that_is_not_utf_8_is_listed_and_read(tmp_path):
    draw(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / os.fsdecode(b"caf\xe9.jpg"))
    (file,) = find_images([tmp_path])
    assert os.fsencode(file.name) == b"caf\xe9.jpg"
    ((item,),) = read_images([file], size_of, 1, 0)
    assert item.image.tolist() == [8, 8]


@pytest.mark.parametrize("suffix", ["JPG", "Jpeg", "jfif", "jpe", "avif", "jp2", "tif", "webp", "gif", "dib"])
def test_suffixes_of_all_readable_formats_count_in_any_case(tmp_path, suffix):
    Image.new("RGB", (8, 8)).save(tmp_path / f"a.{suffix}")
    ((item,),) = read_images(find_images([tmp_path]), size_of, 1, 0)
    assert item.image.tolist() == [8, 8]


def test_pictures_that_cannot_be_read_are_counted_with_what_to_do(tmp_path, caplog):
    draw(tmp_path / "a.jpg")
    for name in ("b.heic", "c.HEIC", "d.jxl", "e.CR2"):
        (tmp_path / name).touch()
    with caplog.at_level(logging.WARNING):
        assert names(tmp_path) == ["a.jpg"]
    assert (
        "Left out pictures that cannot be read here (1 .cr2, 2 .heic, 1 .jxl): 4 "
        "(b.heic, c.HEIC, d.jxl, e.CR2). Convert them to JPEG or PNG, or install pillow-heif to read .heic."
    ) in caplog.text


def test_a_folder_of_unreadable_pictures_alone_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "b.heic").touch()
    with pytest.raises(ConfigError, match=r"holds no image.*1 \.heic.*install pillow-heif"):
        find_images([tmp_path])


def test_a_plugin_of_pillow_makes_its_files_readable(tmp_path, monkeypatch):
    (tmp_path / "b.heic").write_bytes(b"heic-like")
    plugin = types.SimpleNamespace(size=(4, 4))
    monkeypatch.setitem(Image.OPEN, "HEIF", (lambda file, name: plugin, lambda prefix: True))
    assert names(tmp_path) == ["b.heic"]


def test_files_without_a_suffix_are_mentioned(tmp_path, caplog):
    draw(tmp_path / "a.jpg", tmp_path / "b", tmp_path / "c")
    with caplog.at_level(logging.INFO):
        assert names(tmp_path) == ["a.jpg"]
    assert "Left out files without a suffix: 2 (b, c)." in caplog.text
    ((item,),) = read_images(find_images([tmp_path / "b"]), size_of, 1, 0)
    assert item.image.tolist() == [8, 8]


def test_texts_beside_images_are_not_worth_a_word(tmp_path, caplog):
    draw(tmp_path / "a.jpg")
    (tmp_path / "a.txt").touch()
    with caplog.at_level(logging.INFO):
        assert names(tmp_path) == ["a.jpg"]
    assert not caplog.records


def test_a_folder_with_the_name_of_an_image_is_a_folder(tmp_path):
    draw(tmp_path / "a.jpg" / "b.jpg")
    assert names(tmp_path) == ["a.jpg/b.jpg"]


def test_links_to_folders_and_files_are_followed(tmp_path):
    draw(tmp_path / "elsewhere" / "sub" / "a.jpg", tmp_path / "b.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "album").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "c.jpg").symlink_to(tmp_path / "b.jpg")
    assert names(tmp_path / "photos") == ["album/sub/a.jpg", "c.jpg"]


def test_a_folder_with_several_links_is_listed_once_by_its_own_name(tmp_path, caplog):
    draw(tmp_path / "z" / "a.jpg")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    (tmp_path / "z" / "deep").mkdir()
    (tmp_path / "z" / "deep" / "b").symlink_to(tmp_path / "z")
    with caplog.at_level(logging.INFO):
        assert names(tmp_path) == ["z/a.jpg"]
    assert (
        "Left out links to folders that are listed already, or that hold this one: 2 (a, z/deep/b)"
        in caplog.text
    )


@pytest.mark.parametrize("target", [".", "..", "../..", "album"])
def test_loops_of_links_end(tmp_path, target):
    root = tmp_path / "home" / "photos"
    draw(root / "album" / "a.jpg", tmp_path / "home" / "private.jpg", tmp_path / "other.jpg")
    (root / "album" / "loop").symlink_to(root / target)
    (root / "itself").symlink_to(root / "itself")
    assert names(root) == ["album/a.jpg"]


def test_links_to_nothing_are_named(tmp_path, caplog):
    draw(tmp_path / "a.jpg")
    (tmp_path / "2019").symlink_to("/mnt/unmounted/2019")
    (tmp_path / "gone.jpg").symlink_to("/mnt/unmounted/gone.jpg")
    with caplog.at_level(logging.WARNING):
        files = find_images([tmp_path])
    assert "Left out links to nothing: 1 (2019)." in caplog.text
    ((first, second),) = read_images(files, size_of, 2, 0)
    assert (
        first.image.tolist() == [8, 8] and second.error == f"{tmp_path / 'gone.jpg'}: there is no such file."
    )


def make_pipe(path: Path) -> str:
    os.mkfifo(path)
    return "named pipe"


def make_link_to_device(path: Path) -> str:
    path.symlink_to("/dev/zero")
    return "device"


def make_socket(path: Path) -> str:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)
    return "socket"


SPECIAL = [make_pipe, make_link_to_device, make_socket]


@pytest.mark.parametrize("make", SPECIAL)
def test_pipes_devices_and_sockets_are_refused_by_name_not_waited_for(tmp_path, make):
    draw(tmp_path / "b.jpg")
    kind = make(tmp_path / "a.jpg")
    ((bad, good),) = read_images(find_images([tmp_path]), size_of, 2, 0)
    assert bad.error == f"{tmp_path / 'a.jpg'}: is a {kind}, not a file."
    assert good.image.tolist() == [8, 8]


@pytest.mark.parametrize("make", SPECIAL)
def test_a_pipe_device_or_socket_that_is_named_is_refused(tmp_path, make):
    kind = make(tmp_path / "a.jpg")
    with pytest.raises(ConfigError, match=rf"a\.jpg: is a {kind}, neither a file nor a folder"):
        find_images([tmp_path / "a.jpg"])


def test_a_folder_that_cannot_be_read_is_named(tmp_path, caplog):
    draw(tmp_path / "a.jpg")
    (tmp_path / ("x" * 200)).mkdir()
    long = tmp_path / ("x" * 200) / ("y" * 200)
    while len(str(long)) < 4300:  # beyond what the system opens by its path
        long /= "y" * 200
    descriptor = os.open(tmp_path / ("x" * 200), os.O_RDONLY)
    for _ in long.parts[len(tmp_path.parts) + 1 :]:
        os.mkdir("y" * 200, dir_fd=descriptor)
        deeper = os.open("y" * 200, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = deeper
    os.close(descriptor)
    with caplog.at_level(logging.WARNING):
        assert names(tmp_path) == ["a.jpg"]
    assert "Left out folders that cannot be read: 1 (xxx" in caplog.text


def test_a_mistyped_folder_names_the_nearest(tmp_path):
    draw(tmp_path / "photos" / "album" / "a.jpg")
    with pytest.raises(ConfigError, match=rf"no such file or folder\. Did you mean {tmp_path}/photos\?"):
        find_images([tmp_path / "photso" / "album"])
    with pytest.raises(
        ConfigError, match=rf"no such file or folder\. Did you mean {tmp_path}/photos/album\?"
    ):
        find_images([tmp_path / "photos" / "Album"])


def test_an_empty_path_is_not_the_current_folder():
    with pytest.raises(ConfigError, match="a path to images is empty"):
        find_images([""])


def test_a_file_that_is_named_twice_is_listed_once(tmp_path):
    draw(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert find_images([tmp_path / "b.jpg", tmp_path, tmp_path]) == [tmp_path / "b.jpg", tmp_path / "a.jpg"]


def test_only_the_folder_itself_is_listed_where_that_is_asked(tmp_path):
    draw(tmp_path / "a.jpg", tmp_path / "deeper" / "b.jpg")
    assert list_folder(tmp_path, recursive=False).files == [tmp_path / "a.jpg"]


def test_messages_are_one_line_whatever_the_names_hold(tmp_path, caplog):
    draw(tmp_path / "a.jpg")
    (tmp_path / "two\nlines\x1b[31m.heic").touch()
    with caplog.at_level(logging.WARNING):
        find_images([tmp_path])
    assert r"two\nlines\x1b[31m.heic" in caplog.text
