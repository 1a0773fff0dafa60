"""What a person sees who mistypes a command: one line that says what is wrong, never a traceback."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import run

from lavis_lite.commands.errors import explain
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import FileError
from lavis_lite.common.storage.cache import NoCacheError, cache_root, resolve

RECIPE = "projects/blip/train/caption_shapes.yaml"
COMMAND = [sys.executable, "-m", "lavis_lite"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "{nowhere}"], "there is no such run folder"),
        (["metrics", "{nowhere}"], "there is no such run folder"),
        (["metrics", "{folder}"], "is not a run folder"),
        (["report", "{folder}"], "is not a run folder"),
        (["capfilt", "status", "{folder}"], "not a capfilt output folder"),
        (["capfilt", "report", "{folder}"], "not a capfilt output folder"),
        (["capfilt", "refilter", "{folder}", "-o", "{folder}/kept.json"], "not a capfilt output folder"),
        (["train", "--cfg-path", "{torn}"], "is not valid yaml"),
        (["download", "coco_caption", "--options", "imagse=x"], "did you mean images"),
        (
            ["capfilt", "run", "{folder}", "-o", "{folder}/o", "--options", "scorers={{a:{{}}}}"],
            "not valid yaml",
        ),
        (
            ["train", "--cfg-path", RECIPE, "--options", "run.device=gpu"],
            "device: unknown device 'gpu'; choose auto, cpu, cuda or mps",
        ),
    ],
)
def test_a_command_that_cannot_be_done_says_why_in_one_line(command, words, message, tmp_path):
    torn = tmp_path / "torn.yaml"
    torn.write_text("run: [1")
    (tmp_path / "folder").mkdir()
    places = {"nowhere": tmp_path / "nowhere", "folder": tmp_path / "folder", "torn": torn}
    code, _, error = command(*(word.format(**places) for word in words))
    assert code == 1
    assert message in error
    assert len(error.strip().splitlines()) == 1, error
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("caption x --batch-size 0", "--batch-size: expected a whole number of at least 1, found '0'"),
        ("caption x --num-workers -1", "--num-workers: expected a whole number of at least 0, found '-1'"),
        (
            "caption x --num-captions 1.5",
            "--num-captions: expected a whole number of at least 1, found '1.5'",
        ),
        ("caption x --num-captions 99999999999", "--num-captions: must be at most 2147483647"),
        ("caption x --top-p 7", "--top-p: expected a number above 0 and at most 1, found '7'"),
        ("caption x --top-p nan", "--top-p: expected a number above 0 and at most 1, found 'nan'"),
        ("caption x --seed -1", "--seed: expected a whole number of at least 0, found '-1'"),
        ("caption x --format xml", "--format: invalid choice: 'xml'. Known: csv, json."),
        ("caption x --format jsn", "--format: invalid choice: 'jsn'. Did you mean json?"),
        ("caption x --output", "--output: expected one argument"),
        ("search x --index i -k -3", "-k: expected a whole number of at least 1, found '-3'"),
        ("search x --index i --rerank -1", "--rerank: expected a whole number of at least 0"),
        ("datasets check x --num-workers -1", "--num-workers: expected a whole number of at least 0"),
        ("datasets show x -o y -n 0", "-n: expected a whole number of at least 1"),
        ("shards make x -o y --size 0", "--size: expected a whole number of at least 1"),
        ("capfilt run x -o y --ray 0", "--ray: expected a whole number of at least 1"),
        ("capfilt run x -o y --ray-gpus nan", "--ray-gpus: expected a number of at least 0, found 'nan'"),
        ("capfilt refilter x -o y --threshold inf", "--threshold: expected a number, found 'inf'"),
        ("captoin x", "invalid choice: 'captoin'. Did you mean caption"),
        ("models --improt x", "unrecognized arguments: --improt x"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_one_line(command, words, message):
    code, _, error = command(*words.split())
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1, error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--num-captions 5", "--num-captions: 5 captions need as many beams, but there are 3"),
        ("--max-length 600", "--max-length: 600 is more than the 64 tokens that the model reads"),
        (
            "--max-length 8 --min-length 0 --prompt a_red_circle_and_a_blue_square",
            "--prompt: takes 14 tokens",
        ),
        ("--max-length 3 --min-length 5", "--min-length is 5 and --max-length 3"),
        ("--device cuda:77", "device: there is no cuda:77"),
        ("--device gpu", "device: unknown device 'gpu'; choose auto, cpu, cuda or mps."),
        ("--device meta", "device: unknown device 'meta'; choose auto, cpu, cuda or mps."),
        ("--name blip_vqa", "--name: the model blip_vqa does not caption images. Choose one that does"),
        ("--name blip_captoin", "Did you mean blip_caption"),
        ("--checkpoint nowhere.pth", "nowhere.pth"),
        ("--output {photos}", "is a folder; name a file in it"),
        ("--output {photos}/1.jpg", "is one of the images to caption"),
        ("--output {photos}/1.jpg/a.json", "1.jpg is a file, so"),
        ("--output /dev/null", "is a device, not a file; leave --output out"),
    ],
)
def test_captions_that_cannot_be_are_refused_before_anything_is_written(command, photos, words, message):
    before = {file: file.read_bytes() for file in photos.parent.rglob("*.*") if file.is_file()}
    words = words.format(photos=photos).split()
    output = [] if "--output" in words else ["--output", str(photos.parent / "new" / "captions.json")]
    code, _, error = command("caption", str(photos), "--type", "tiny", *words, *output)
    assert code == 1
    assert message in error
    assert len(error.strip().splitlines()) == 1, error
    assert before == {file: file.read_bytes() for file in photos.parent.rglob("*.*") if file.is_file()}
    assert not (photos.parent / "new").exists()


def test_rank_in_the_environment_does_not_silence_errors(command, tmp_path):
    pod = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "pod-0"}
    for words in (["caption", str(tmp_path / "none")], ["train", "--cfg-path", str(tmp_path / "none.yaml")]):
        code, _, error = command(*words, **pod)
        assert code == 1 and "no such" in error


def test_of_ranks_on_one_machine_the_first_says_what_all_of_them_read(command, tmp_path):
    words = ["train", "--cfg-path", str(tmp_path / "none.yaml")]
    launch = {"RANK": "5", "WORLD_SIZE": "8", "MASTER_ADDR": "a", "TORCHELASTIC_RUN_ID": "b"}
    assert command(*words, **launch, LOCAL_RANK="1") == (1, "", "")
    code, _, error = command(*words, **launch, LOCAL_RANK="0")
    assert code == 1 and error.startswith("[rank 5] ConfigError: ")
    code, _, error = command("caption", str(tmp_path / "none"), LOCAL_RANK="1")
    assert code == 1 and error.startswith("ConfigError: ")


def test_debug_shows_the_traceback_of_a_mistake_before_its_line(command, tmp_path):
    for words, environment in ((["--debug"], {}), ([], {"LAVIS_LITE_DEBUG": "1"})):
        code, _, error = command("report", str(tmp_path / "none"), *words, **environment)
        assert code == 1
        assert error.startswith("Traceback") and "no such run folder" in error.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "x", "a.json"), "OSError: a.json: the disk is full; free some space"),
        (OSError(errno.EDQUOT, "x", "a.json"), "OSError: a.json: the disk quota is used up; free"),
        (PermissionError(errno.EACCES, "x", b"a\xe9"), "PermissionError: a\udce9: may not be used"),
        (OSError(errno.EROFS, "x", "a"), "OSError: a: lies on a read-only file system; choose another"),
        (
            NotADirectoryError(errno.ENOTDIR, "x", "a/b"),
            "NotADirectoryError: a/b: a part of this path is a file",
        ),
        (
            FileExistsError(errno.EEXIST, "x", "a"),
            "FileExistsError: a: is there already, and is not a folder",
        ),
        (FileNotFoundError(errno.ENOENT, "x", "java"), "FileNotFoundError: java: there is no such file"),
        (OSError(errno.ENAMETOOLONG, "x", "a"), "OSError: a: the name is too long"),
        (OSError(errno.EADDRINUSE, "x"), "OSError: the network port is in use by another process"),
        (OSError(errno.EMFILE, "x"), "OSError: too many files are open; raise the limit"),
        (MemoryError(), "MemoryError: the memory is full; use a smaller batch size"),
        (RuntimeError("The server socket ... EADDRINUSE"), "RuntimeError: the network port  is in use"),
        (RuntimeError("can't allocate memory: you tried"), "RuntimeError: the memory of the device is full"),
        (FileError("a: is a folder."), "FileError: a: is a folder."),
        (ConfigError("run.x: no."), "ConfigError: run.x: no."),
        (NoCacheError("no home"), "NoCacheError: no home"),
    ],
)
def test_what_the_machine_lacks_is_one_line(error, line, monkeypatch):
    monkeypatch.delenv("MASTER_PORT", raising=False)
    assert (explain(error) or "").startswith(line)


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), RuntimeError("x"), OSError("x"), TypeError()]
)
def test_a_fault_of_ours_keeps_its_traceback(error):
    assert explain(error) is None


def test_a_full_disk_is_found_behind_the_error_of_the_writer():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "checkpoint_3.pth")
        except OSError:
            raise RuntimeError("unexpected pos 12516608 vs 12516496")  # noqa: B904 (as torch.save does)
    except RuntimeError as error:
        assert explain(error) == (
            "OSError: checkpoint_3.pth: the disk is full; free some space and run the same command again."
        )


def test_a_full_disk_under_standard_output_is_one_line():
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*COMMAND, "datasets"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr == "OSError: the disk is full; free some space and run the same command again.\n"


def test_a_reader_that_goes_away_ends_the_command_quietly():
    script = f"set -o pipefail; {sys.executable} -m lavis_lite datasets | true"
    ended = run(["bash", "-c", script])
    assert ended.returncode == 141 and ended.stderr == ""


def test_without_a_home_folder_only_what_needs_the_cache_is_refused(command, monkeypatch, tmp_path):
    import pwd

    def nobody(uid: int) -> None:
        raise KeyError("getpwuid(): uid not found: 54321")

    for name in ("HOME", "LAVIS_LITE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(NoCacheError, match="set LAVIS_LITE_CACHE to a writable folder"):
        cache_root()
    assert resolve(tmp_path / "a.json") == tmp_path / "a.json"
    code, out, _ = command("datasets")
    assert code == 0 and "coco_caption" in out
    code, _, error = command("download", "ok_vqa")
    assert code == 1 and re.fullmatch(r"NoCacheError: .* set LAVIS_LITE_CACHE .*", error.splitlines()[-1])
    code, _, error = command("report", "~/run")
    assert code == 1 and len(error.splitlines()) == 1 and "no home folder" in error


def test_any_text_can_be_written_to_a_stream_of_any_encoding(tmp_path):
    folder = tmp_path / "ünï 画像"
    folder.mkdir()
    said = run([*COMMAND, "report", str(folder)], PYTHONIOENCODING="ascii")
    assert said.returncode == 1
    assert said.stderr.startswith(f"ConfigError: {tmp_path}/\\xfcn\\xef \\u753b\\u50cf: is not a run folder")
