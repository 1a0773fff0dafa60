"""The report of a run: complete, in one file, and inert whatever a caption holds."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.logs.writers import RunLog
from lavis_lite.report.gallery import THUMBNAIL_SIDE, make_gallery
from lavis_lite.report.run_report import write_run_report

CONFIG = """
model:
  arch: blip_caption
  model_type: base_coco
datasets:
  shapes_caption:
    captions_per_image: 5
run:
  task: captioning
  max_epoch: 2
  init_lr: 1.0e-05
"""
EVIL = "<script>alert('owned')</script><img src=x onerror=alert(1)>\"' onload=\"alert(2)"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser would see; a tag that is not closed in order is an error."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attributes]
        assert len(set(names)) == len(names)
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def write_image(path: Path, size: tuple[int, int] = (640, 480)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.radial_gradient("L").resize(size).convert("RGB").save(path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run_7"
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG, "utf-8")
    with RunLog(folder, tensorboard=False) as log:
        for step in range(0, 100, 10):
            values = {"loss": 5.0 - step / 50, "loss_itm": 0.5, "lr": 1e-5}
            log.write("train", step, values, epoch=step // 50, time=1_790_000_000 + step)
        for epoch in (0, 1):
            for split in ("val", "test"):
                values = {"CIDEr": 0.5 + epoch / 4}
                log.write(
                    "valid", 50 * epoch + 49, values, epoch=epoch, split=split, time=1_790_000_000 + 3725
                )
        log.write("note", 60, {"message": "replaced 1 bad sample"})
    return folder


def read_report(run: Path, **options: object) -> Page:
    return Page(write_run_report(run, **options))


def evaluated(run: Path) -> None:
    scores = {"CIDEr": 1.3312345, "n": 5000, "tokenizer": "PTB of Java"}
    write_json(run / "evaluate.json", {"val": {**scores, "unavailable": {"SPICE": "needs Java 8 or 11"}}})


def test_the_page_says_what_the_run_was(run: Path) -> None:
    page = read_report(run)
    assert "blip_caption on shapes_caption" in page.text
    for fact in ("blip_caption / base_coco", "captioning", "1e-05", "99", "2026-09-21", "run_7"):
        assert fact in page.text


def test_the_whole_config_can_be_unfolded(run: Path) -> None:
    page = read_report(run)
    assert page.all("details")
    assert CONFIG.strip() in page.text


def test_metrics_come_with_their_tokenizer_and_what_is_missing_with_its_reason(run: Path) -> None:
    evaluated(run)
    page = read_report(run)
    assert "1.331" in page.text and "5000" in page.text
    assert "tokenizer: PTB of Java" in page.text
    assert re.search(r"val:\s+SPICE: needs Java 8 or 11", page.text)


def test_before_an_evaluation_the_latest_validation_is_shown_as_such(run: Path) -> None:
    page = read_report(run)
    assert "There is no evaluate.json yet. These are the latest scores" in page.text
    assert [attributes["scope"] for attributes in page.all("th")] == ["col"] * 3 + ["row"]
    assert "0.75" in page.text


def test_losses_share_a_chart_and_each_metric_has_one_with_a_line_a_split(run: Path) -> None:
    labels = [attributes["aria-label"] for attributes in read_report(run).all("svg")]
    assert labels == [
        "Training loss: loss goes from 5 to 3.2; loss_itm goes from 0.5 to 0.5",
        "lr: lr goes from 1e-05 to 1e-05",
        "CIDEr: val goes from 0.5 to 0.75; test goes from 0.5 to 0.75",
    ]


def test_a_nan_in_the_log_is_counted_in_the_chart(run: Path) -> None:
    with RunLog(run, tensorboard=False) as log:
        log.write("train", 110, {"loss": float("nan")})
    assert "1 not finite" in read_report(run).text


def test_notes_of_the_run_are_listed(run: Path) -> None:
    assert "step 60: message: replaced 1 bad sample" in read_report(run).text


def test_a_picture_stands_small_beside_its_caption_and_references(run: Path) -> None:
    write_image(run / "pictures" / "tall.png", (300, 900))
    record = {
        "image_id": 12,
        "image": "pictures/tall.png",
        "caption": "a red circle",
        "references": ["one circle", "כדור אדום"],
    }
    write_json(run / "result" / "val_report.json", [record])
    page = read_report(run)
    (image,) = page.all("img")
    assert image["alt"] == "a red circle"
    picture = Image.open(io.BytesIO(base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))))
    assert picture.size == (64, THUMBNAIL_SIDE) == (int(image["width"]), int(image["height"]))
    for text in ("a red circle", "one circle", "כדור אדום", "12"):
        assert text in page.text


def test_an_absolute_image_path_is_found_too(run: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "elsewhere" / "a.jpg")
    records = [{"image_id": 1, "image": str(tmp_path / "elsewhere" / "a.jpg"), "caption": "a cat"}]
    write_json(run / "result" / "val_report.json", records)
    assert len(read_report(run).all("img")) == 1


def test_a_photograph_loses_its_metadata(run: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    Image.new("RGB", (50, 50)).save(run / "a.jpg", exif=exif, comment="taken at home")
    write_json(run / "result" / "val_report.json", [{"image": "a.jpg", "caption": "a house"}])
    (image,) = read_report(run).all("img")
    assert b"taken at home" not in base64.b64decode(image["src"].split(",")[1])


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("gone.jpg", "there is no such file"),
        ("broken.jpg", "not an image"),
        (None, "no image path was recorded"),
        ("a\x00b.jpg", "null byte"),
        ("x" * 5000, "name too long"),
    ],
)
def test_a_picture_that_cannot_be_shown_is_named_with_its_reason(
    run: Path, image: str | None, reason: str
) -> None:
    (run / "broken.jpg").write_bytes(b"<html>404</html>")
    write_json(run / "result" / "val_report.json", [{"image_id": 1, "image": image, "caption": "a cat"}])
    page = read_report(run)
    assert page.all("img") == []
    assert "a cat" in page.text
    assert reason in page.text.lower()


def test_a_large_split_is_sampled_evenly_and_says_so(run: Path) -> None:
    write_json(
        run / "result" / "val.json", [{"image_id": i, "caption": f"caption-{i:03}"} for i in range(100)]
    )
    page = read_report(run, images=4)
    assert re.findall(r"caption-\d+", page.text) == [
        "caption-000",
        "caption-025",
        "caption-050",
        "caption-075",
    ]
    assert "4 of 100, evenly spaced" in page.text


def test_each_split_shows_its_newest_result(run: Path) -> None:
    for name in ("val_epoch2", "val_epoch10", "val_epoch10_rank0", "test_epoch3", "test"):
        write_json(run / "result" / f"{name}.json", [{"image_id": 1, "caption": f"from {name}!"}])
    page = read_report(run)
    assert re.findall(r"from \w+!", page.text) == ["from test!", "from val_epoch10!"]


def test_a_captioned_folder_has_its_gallery(run: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "holiday" / "beach.png")
    captions = tmp_path / "holiday" / "captions.json"
    write_json(captions, [{"image": "beach.png", "caption": "a beach"}])
    page = read_report(run, captioned_folder_json=captions)
    assert "Captioned folder holiday" in page.text
    assert page.all("img")[0]["alt"] == "a beach"


def test_markup_from_anywhere_is_only_text(run: Path, tmp_path: Path) -> None:
    write_image(run / "a.png")
    record = {"image_id": EVIL, "image": "a.png", "caption": EVIL, "references": [EVIL]}
    write_json(run / "result" / "val_report.json", [record, {**record, "image": EVIL}])
    write_json(run / "evaluate.json", {EVIL: {EVIL: 1.0, "tokenizer": EVIL, "unavailable": {EVIL: EVIL}}})
    write_json(tmp_path / "captions.json", [record])
    (run / "config.yaml").write_text(f"model: {{arch: {json.dumps(EVIL)}}}", "utf-8")
    with RunLog(run, tensorboard=False) as log:
        log.write("train", 1, {EVIL: 1.0})
        log.write("note", 1, {EVIL: EVIL})
    page = read_report(run, captioned_folder_json=tmp_path / "captions.json")
    assert page.all("script") == []
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert page.text.count(EVIL) >= 12


def test_the_page_loads_nothing_from_anywhere(run: Path) -> None:
    write_image(run / "a.png")
    caption = "see https://example.org/a.png"
    write_json(run / "result" / "val_report.json", [{"image_id": 1, "image": "a.png", "caption": caption}])
    page = read_report(run)
    loading = ("src", "href", "srcset", "action", "data", "poster", "background", "xlink:href")
    for tag, attributes in page.elements:
        for name in loading:
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:image/")), (tag, name, target)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    style = page.source[page.source.index("<style>") : page.source.index("</style>")]
    assert "url(" not in style and "@import" not in style
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")


def test_sections_can_be_reached_and_ids_are_unique(run: Path) -> None:
    page = read_report(run)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {link["href"].removeprefix("#") for link in page.all("a")} == set(ids)


def test_the_page_follows_the_dark_mode_and_width_of_its_reader(run: Path) -> None:
    source = read_report(run).source
    assert "prefers-color-scheme: dark" in source
    assert '<meta name="viewport" content="width=device-width' in source


def test_a_run_that_has_only_begun_makes_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    page = read_report(tmp_path)
    for missing in ("config.yaml", "log.jsonl", "evaluate.json", "said nothing about pictures"):
        assert missing in page.text
    assert "No metrics yet" in page.text


def test_damaged_files_are_named_and_the_rest_is_shown(run: Path, tmp_path: Path) -> None:
    (run / "evaluate.json").write_text('{"val": {"CIDEr"', "utf-8")
    (run / "config.yaml").write_text("model: [unclosed", "utf-8")
    (run / "result").mkdir()
    (run / "result" / "val.json").write_text("[1, 2", "utf-8")
    write_json(run / "result" / "test.json", {"not": "a list"})
    write_json(run / "result" / "other.json", [{"question_id": 1, "score": 2}])
    page = read_report(run, captioned_folder_json=tmp_path / "captions.json")
    for message in (
        "evaluate.json could not be read",
        "config.yaml could not be read",
        "val.json could not be read",
        "test.json holds a dict where a list belongs",
        "result/other.json holds nothing to show",
        "There is no captions.json yet",
    ):
        assert message in page.text
    assert page.all("svg")


def test_a_damaged_log_line_is_named(run: Path) -> None:
    lines = (run / "log.jsonl").read_bytes().splitlines(keepends=True)
    (run / "log.jsonl").write_bytes(b"".join([lines[0], b"{broken\n", *lines[1:], b"[[\n"]))
    page = read_report(run)
    assert "line 2 is not JSON, and neither are 1 lines after it" in page.text
    assert page.all("svg") and "step 60: message: replaced 1 bad sample" in page.text


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "train", "step": "x", "time": 1e300, "epoch": True, "loss": 1},
        {"kind": ["train"], "step": None, "time": "NaN", "epoch": "Infinity"},
        {"kind": "valid", "step": {}, "split": {"a": 1}, "time": -1e18},
    ],
)
def test_odd_values_in_the_log_do_not_end_the_page(run: Path, line: dict) -> None:
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")
    assert read_report(run).all("svg")


@pytest.mark.parametrize(
    "record",
    [
        {"query": "text", "found": 7, "text": "a dog"},
        {"query": "image", "found": [{"score": "high"}], "image": "a.png"},
        {"query": "text", "found": [{"image_path": "a.png"}], "rank": "first"},
    ],
)
def test_a_damaged_record_is_named_beside_the_good_ones(run: Path, record: dict) -> None:
    write_json(run / "result" / "val.json", [record, {"image_id": 1, "caption": "a cat"}])
    page = read_report(run)
    assert "this record is damaged" in page.text and "a cat" in page.text


def test_odd_captions_do_not_break_the_page(run: Path) -> None:
    captions = ["", "x" * 10_000, "broken \ud800 unicode", "line\u2028separator\r\n", 7, None]
    write_json(run / "result" / "val.json", [{"image_id": i, "caption": c} for i, c in enumerate(captions)])
    page = read_report(run)
    assert "(empty caption)" in page.text
    assert "x" * 10_000 in page.text


def test_the_same_run_makes_the_same_page_byte_by_byte(run: Path) -> None:
    evaluated(run)
    first = write_run_report(run).read_bytes()
    assert write_run_report(run).read_bytes() == first
    assert not list(run.glob("*.tmp")) and not list(run.glob(".*.tmp"))


def test_a_missing_run_folder_is_an_error_that_names_the_nearest(run: Path) -> None:
    with pytest.raises(NotADirectoryError, match=f"no such run folder; did you mean {run}"):
        write_run_report(run.parent / "rnu_7")
    with pytest.raises(NotADirectoryError, match="is a file; name the output folder"):
        write_run_report(run / "log.jsonl")


@pytest.mark.parametrize("content", ["", "database: {host: localhost}", "- a list"])
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    write_image(tmp_path / "a.jpg")
    if content:
        (tmp_path / "config.yaml").write_text(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="is not a run folder"):
        write_run_report(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_an_output_folder_of_capfilt_is_sent_to_its_own_report(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "done").mkdir()
    with pytest.raises(ConfigError, match="capfilt report"):
        write_run_report(tmp_path)


def test_no_pictures_at_all_cannot_be_asked_for(run: Path) -> None:
    with pytest.raises(ValueError, match="images: expected at least 1"):
        write_run_report(run, images=0)


def test_answers_finds_and_classes_are_shown_as_captions_are(tmp_path):
    picture = tmp_path / "a.jpg"
    Image.new("RGB", (40, 30), (200, 0, 0)).save(picture)
    hits = [{"image_path": str(picture), "score": 1.5, "right": False}] * 2
    records = [
        {"question": "what colour?", "answer": "red", "references": ["red"] * 10, "image_path": str(picture)},
        {"prediction": 3, "label": 4, "text_input": "a sentence", "image_path": str(picture)},
        {"query": "image", "image_path": str(picture), "rank": 0, "references": ["a star"]}
        | {"found": [{"text": "a star", "score": 2.0, "right": True}]},
        {"query": "text", "text": "a red <circle>", "rank": 6, "found": hits},
    ]
    items = make_gallery("t", records, [tmp_path], 10, "records").items
    assert [item.caption for item in items] == ["red", "class 3", "2.00  a star", "a red <circle>"]
    assert [item.name for item in items][:2] == ["what colour?", "a sentence"]
    assert [item.references for item in items] == [["red"], ["class 4"], ["a star"], []]
    assert items[3].name == "its picture is at place 7" and len(items[3].more) == 1
    assert all(item.picture is not None for item in items)
