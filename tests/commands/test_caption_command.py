"""Captioning files: what exists stays until its successor is whole, and a kill costs nothing that is done."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import REPOSITORY

from lavis_lite import load_model
from lavis_lite.commands.caption_output import CaptionJournal, write_captions, write_stream
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import LockedError, OwnerLock

TINY = ("--type", "tiny", "--num-workers", "0", "--batch-size", "2")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "captioner.pth"
    torch.save({"model": load_model("blip_caption", "tiny").state_dict()}, path)
    return path


def test_every_image_has_its_record_in_order(command, photos, weights, tmp_path):
    (photos / "1.jpg").write_bytes(b"not an image")
    output = tmp_path / "new" / "captions.json"
    code, _, _ = command("caption", str(photos), *TINY, "--checkpoint", str(weights), "--output", str(output))
    records = json.loads(output.read_text())
    assert code == 1  # one image has no caption
    assert [Path(record["image"]).name for record in records] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [set(record) for record in records] == [
        {"image", "caption"},
        {"image", "error"},
        {"image", "caption"},
    ]
    assert list(output.parent.iterdir()) == [output]


def test_standard_output_has_the_same_records_as_the_file(command, photos, weights, tmp_path):
    words = ["caption", str(photos), *TINY, "--checkpoint", str(weights), "--num-captions", "2"]
    _, out, _ = command(*words)
    command(*words, "--output", str(tmp_path / "captions.json"))
    assert out == (tmp_path / "captions.json").read_text()
    assert all(len(record["caption"]) == 2 for record in json.loads(out))


@pytest.mark.parametrize("words", [["--checkpoint", "nowhere.pth"], ["--max-length", "999"], ["nofolder"]])
def test_an_existing_file_is_not_touched_by_a_command_that_fails(command, photos, tmp_path, words):
    output = tmp_path / "captions.json"
    output.write_text("ten hours of work")
    code, _, _ = command("caption", str(photos), *words, *TINY, "--output", str(output))
    assert code == 1
    assert output.read_text() == "ten hours of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captions.json", "photos"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_command_keeps_the_old_file_and_continues_when_it_is_called_again(
    command, photos, weights, tmp_path, number
):
    for copy in range(3, 40):
        os.link(photos / "2.jpg", photos / f"{copy:03d}.jpg")
    output, journal = tmp_path / "captions.json", tmp_path / "captions.json.partial.jsonl"
    output.write_text("the file of before")
    words = ["caption", str(photos), "--type", "tiny", "--num-workers", "1", "--batch-size", "2"]
    words += ["--checkpoint", str(weights), "--output", str(output)]
    process = subprocess.Popen(
        [sys.executable, "-m", "lavis_lite", *words],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.killpg(process.pid, number)  # as a terminal or a scheduler does
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in error and "and the same command continues there" in error
    assert output.read_text() == "the file of before"

    done = journal.read_bytes().count(b"\n") - 1
    code, _, error = command(*words)
    assert code == 0 and f"continuing: {done} of 40 images are captioned already" in error
    records = json.loads(output.read_text())
    assert [Path(record["image"]) for record in records] == sorted(photos.iterdir())
    assert len({record["caption"] for record in records[1:-2]}) == 1  # before the stop and after it
    assert not journal.exists()


def journal_of(output: Path, **settings: object) -> CaptionJournal:
    return CaptionJournal(output, {"num_beams": 3, **settings})


def begin(output: Path, files: list[Path]) -> None:
    """Leave a journal of two files, as a kill does."""

    def caption(missing):
        for file in missing[:2]:
            yield {"image": str(file), "caption": f"of {file.name}"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), journal_of(output) as journal:
        journal.extend(files, caption)


def continued(output: Path, files: list[Path]) -> tuple[list[str], list[dict]]:
    """Return the names of the files that are captioned in a second call, and all records."""
    seen = []

    def caption(missing):
        for file in missing:
            seen.append(file.name)
            yield {"image": str(file), "caption": f"again of {file.name}"}

    with journal_of(output) as journal:
        journal.extend(files, caption)
        return seen, list(journal.records(files))


def test_only_what_the_journal_lacks_is_captioned_again(photos, tmp_path):
    files = sorted(photos.iterdir())
    begin(tmp_path / "out.json", files)
    seen, records = continued(tmp_path / "out.json", files)
    assert seen == ["2.jpg"]
    assert [record["caption"] for record in records] == ["of 0.jpg", "of 1.jpg", "again of 2.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_an_image_that_has_changed_since_is_captioned_again(photos, tmp_path):
    files = sorted(photos.iterdir())
    begin(tmp_path / "out.json", files)
    files[0].write_bytes(files[2].read_bytes() + b" ")
    assert continued(tmp_path / "out.json", files)[0] == ["0.jpg", "2.jpg"]


@pytest.mark.parametrize("place", [-1, -30])
def test_a_damaged_or_half_written_line_costs_its_image_alone(photos, tmp_path, place):
    files = sorted(photos.iterdir())
    begin(tmp_path / "out.json", files)
    journal = tmp_path / "out.json.partial.jsonl"
    content = bytearray(journal.read_bytes())
    if place == -1:
        content += b'{"crc": "12'
    else:
        content[place] ^= 1
    journal.write_bytes(content)
    assert continued(tmp_path / "out.json", files)[0] == (["2.jpg"] if place == -1 else ["1.jpg", "2.jpg"])


def test_a_journal_with_other_settings_is_refused_with_the_difference(photos, tmp_path):
    begin(tmp_path / "out.json", sorted(photos.iterdir()))
    before = (tmp_path / "out.json.partial.jsonl").read_bytes()
    with (
        pytest.raises(ConfigError, match="other settings \\(num_beams was 3 and is now 5\\)"),
        journal_of(tmp_path / "out.json", num_beams=5),
    ):
        pass
    assert (tmp_path / "out.json.partial.jsonl").read_bytes() == before


def test_a_file_of_something_else_in_the_place_of_the_journal_is_left_alone(photos, tmp_path):
    (tmp_path / "out.json.partial.jsonl").write_text("notes")
    with pytest.raises(ConfigError, match="is in the way"), journal_of(tmp_path / "out.json"):
        pass
    assert (tmp_path / "out.json.partial.jsonl").read_text() == "notes"


def test_two_commands_do_not_write_one_output_at_once(tmp_path):
    with (
        OwnerLock(tmp_path / ".out.json.lock", "the output"),
        pytest.raises(LockedError, match=f"out.json is in use by process {os.getpid()}"),
        journal_of(tmp_path / "out.json"),
    ):
        pass


def test_a_name_that_is_not_utf8_comes_back_from_json_as_it_is(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    for form in ("json", "csv"):
        write_captions([{"image": name, "caption": "a dog"}], tmp_path / f"out.{form}", form)
    (record,) = json.loads((tmp_path / "out.json").read_text())
    assert os.fsencode(record["image"]) == b"caf\xe9.jpg"
    assert (tmp_path / "out.csv").read_text() == "image,caption,error\ncaf\\udce9.jpg,a dog,\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-16"])
def test_json_is_the_same_in_every_encoding_of_a_stream(encoding):
    records = [{"image": "é.jpg", "caption": "犬 🐕\u2028a \\ dog"}, {"image": "b.jpg", "caption": "b"}]
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding=encoding, errors="backslashreplace")
    assert write_stream(records, "json", stream) == 0
    assert json.loads(content.getvalue().decode(encoding)) == records


def test_an_empty_list_is_json_too(tmp_path):
    write_captions([], tmp_path / "out.json", "json")
    assert json.loads((tmp_path / "out.json").read_text()) == []


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "'=1", "''+1", "-", "- a dash"],
)
def test_no_spreadsheet_runs_a_cell_and_json_keeps_the_text(tmp_path, text):
    for form in ("json", "csv"):
        write_captions([{"image": text, "caption": text}], tmp_path / f"out.{form}", form)
    assert json.loads((tmp_path / "out.json").read_text()) == [{"image": text, "caption": text}]
    with (tmp_path / "out.csv").open(newline="") as file:
        _, (image, caption, _) = csv.reader(file)
    assert image == caption == "'" + text  # one apostrophe taken away gives the text


@pytest.mark.parametrize("text", ["a dog", "a = b", "'a dog'", "", "1-1", "a, b", 'a "b"', "two\nlines"])
def test_other_cells_are_written_as_they_are(tmp_path, text):
    write_captions([{"image": "a.jpg", "caption": text}], tmp_path / "out.csv", "csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        assert list(csv.reader(file))[1] == ["a.jpg", text, ""]


def test_a_sampled_caption_depends_on_seed_and_image_alone(command, photos, weights):
    words = ["caption", "--type", "tiny", "--num-workers", "0", "--checkpoint", str(weights), "--sample"]
    _, together, _ = command(*words, str(photos), "--seed", "3", "--batch-size", "3")
    _, alone, _ = command(*words, str(photos / "2.jpg"), "--seed", "3")
    assert json.loads(together)[2] == json.loads(alone)[0]


def test_a_model_without_weights_is_named_as_such(command, photos):
    _, _, error = command("caption", str(photos), *TINY)
    assert "blip_caption tiny has no published weights: its captions are random" in error
