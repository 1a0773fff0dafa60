"""Scorers of one's own, CLIP, columns of a table; folders and registered data sets as input."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from cleaning import job_of
from conftest import SHAPES, TINY_SIZES
from processes import REPOSITORY, run
from pyarrow import Table, parquet
from shards import jpeg, write_shards

from lavis_lite import load_model, registry
from lavis_lite.capfilt.scorers import BaseScorer, ScoreRequest
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.capfilt.sources import from_dataset, from_folder, from_shards
from lavis_lite.capfilt.workers import run_job
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.datasets.web.shards import list_shards


@registry.register_scorer("length_for_test")
class Length(BaseScorer):
    """Longer texts are better."""

    names = ("length",)

    def score(self, request: ScoreRequest):
        return [[(float(len(text)),) for text in own] for own in request.texts]


class Parrot:
    """A captioner that is no BLIP: any object with `generate` will do."""

    def generate(self, samples, num_captions, seed, **settings):
        return [f"image {number} says {word}" for number in seed for word in ("a", "bb")[:num_captions]]

    def state_dict(self):
        return {"weight": torch.ones(1)}


def clean(given, output: Path, captioner=None, **settings) -> list[dict]:
    settings = CapFiltSettings(**{"batch_size": 3, "captions_per_image": 2, **settings})
    _, failed = run_job(job_of(given, output, settings, captioner), show=False)
    assert not failed
    return parquet.read_table(output / "scores.parquet").to_pylist()


@pytest.fixture
def crawl(tmp_path):
    return from_shards(list_shards([str(write_shards(tmp_path / "crawl", [5, 4]))]))


def test_a_scorer_and_a_captioner_of_ones_own_decide(crawl, tmp_path):
    rows = clean(
        crawl, tmp_path / "out", Parrot(), scorers={"length_for_test": {}}, rule="length", threshold=16.0,
        best_synthetic=1, score="length",
    )  # fmt: skip
    assert len(rows) == 9 * 3
    for row in rows:
        assert row["length"] == len(row["text"])
        longest = max(r["length"] for r in rows if r["key"] == row["key"])
        assert row["kept"] == (row["source"] == "synthetic" and row["length"] == longest)


def test_a_column_of_a_table_decides_about_web_texts_without_any_model(crawl, tmp_path):
    table = Table.from_pylist([{"key": f"{n:06d}", "aesthetic": n / 10} for n in range(8)])
    parquet.write_table(table, tmp_path / "own.parquet")
    column = {"file": str(tmp_path / "own.parquet"), "column": "aesthetic"}
    rows = clean(crawl, tmp_path / "out", scorers={"column": column}, rule="aesthetic", threshold=0.45)
    assert [row["key"] for row in rows if row["kept"]] == ["000005", "000006", "000007"]
    assert {row["key"]: row["reason"] for row in rows}["000008"] == "aesthetic not scored"


def test_a_column_that_is_not_there_is_named(crawl, tmp_path):
    parquet.write_table(Table.from_pylist([{"key": "a", "clip": 1.0}]), tmp_path / "own.parquet")
    column = {"file": str(tmp_path / "own.parquet"), "column": "aesthetic"}
    with pytest.raises(ConfigError, match=r"no column 'aesthetic', only key, clip"):
        clean(crawl, tmp_path / "out", scorers={"column": column})


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """A CLIP of a few thousand weights, with a tokenizer that reads letter by letter."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": len(words), "max_position_embeddings": 40, **ends},
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    return folder


def test_clip_scores_as_transformers_does(crawl, clip_folder, tmp_path):
    from PIL import Image
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizerFast

    rows = clean(crawl, tmp_path / "out", scorers={"clip": {"checkpoint": str(clip_folder)}}, rule="clip")
    damage: list[str] = []
    raw = next(crawl.units[0].read(damage))
    assert not damage
    (tmp_path / "first.jpg").write_bytes(raw.members["jpg"])
    pixels = CLIPImageProcessor.from_pretrained(clip_folder)(
        images=Image.open(tmp_path / "first.jpg"), return_tensors="pt"
    )
    tokens = CLIPTokenizerFast.from_pretrained(clip_folder)([rows[0]["text"]], return_tensors="pt")
    with torch.no_grad():
        output = CLIPModel.from_pretrained(clip_folder)(**pixels, **tokens)
    cosine = torch.nn.functional.cosine_similarity(output.image_embeds, output.text_embeds)
    assert rows[0]["clip"] == pytest.approx(cosine.item(), abs=1e-5)


def test_a_clip_without_its_tokenizer_is_refused(crawl, clip_folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(clip_folder, bare)
    for file in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        (bare / file).unlink(missing_ok=True)
    with pytest.raises(ConfigError, match="holds no tokenizer for its model's 190 entries"):
        clean(crawl, tmp_path / "out", scorers={"clip": {"checkpoint": str(bare)}}, rule="clip")


def test_a_folder_of_images_is_cleaned_with_the_lines_beside_them(tmp_path):
    photos = tmp_path / "photos" / "deeper"
    photos.mkdir(parents=True)
    for number in range(3):
        (photos / f"{number}.jpg").write_bytes(jpeg(number))
    (photos / "0.txt").write_text("a line\nanother line\n")
    given = from_folder(tmp_path / "photos", unit_size=2)
    assert [unit.name for unit in given.units] == ["000000", "000001"]
    rows = clean(given, tmp_path / "out", scorers={"length_for_test": {}}, rule="length", threshold=8.0)
    assert [(row["text"], row["kept"]) for row in rows] == [("a line", False), ("another line", True)]
    (pair,) = json.loads((tmp_path / "out" / "kept.json").read_text())
    assert pair["caption"] == "another line"


def test_a_pipe_and_a_device_among_the_images_fail_by_name(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "0.jpg").write_bytes(jpeg(0))
    (photos / "0.txt").write_text("another line\n")
    os.mkfifo(photos / "1.jpg")
    (photos / "2.jpg").symlink_to("/dev/zero")
    (photos / ".hidden.jpg").write_bytes(jpeg(1))
    given = from_folder(photos, unit_size=5)
    rows = clean(given, tmp_path / "out", scorers={"length_for_test": {}}, rule="length", threshold=8.0)
    pipe, device = (row["reason"] for row in rows if not row["kept"])
    assert f"{photos / '1.jpg'}: is a named pipe, not a file" in pipe
    assert f"{photos / '2.jpg'}: is a device, not a file" in device
    assert [row["text"] for row in rows if row["kept"]] == ["another line"]


def test_a_data_set_without_images_on_disk_is_refused():
    with pytest.raises(ConfigError, match="list is neither"):
        from_dataset([1, 2], 10)


def test_the_task_cleans_a_registered_data_set_on_two_ranks(shapes_folder, tmp_path):
    """By evaluate.py and a config, as any other task; the result trains."""
    matcher = load_model("blip_image_text_matching", "tiny", **TINY_SIZES)
    weights = matcher.save_salesforce(tmp_path / "matcher.pth")
    size = {"name": "blip_image_eval", "image_size": 32}
    data = {"folder": str(shapes_folder), "seed": 7, "train_images": 40, "val_images": 10, "test_images": 10}
    sections = {
        "model": {"arch": "blip_caption", "model_type": "tiny", **TINY_SIZES},
        "datasets": {
            "shapes_caption": {**data, "drawn_size": 32, "vis_processor": {"train": size, "eval": size}}
        },
        "run": {
            "task": "capfilt",
            "scorers": {"length_for_test": {}},
            "rule": "length",
            "threshold": 1.0,
            "captions_per_image": 1,
            "generation": {"max_length": 8, "min_length": 3},
            "shard_size": 15,
            "num_workers": 0,
            "device": "cpu",
            "report": False,
            "output_dir": str(tmp_path / "run"),
        },
        "imports": [str(Path(__file__)), SHAPES],
    }
    assert weights.is_file()
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(sections))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, str(REPOSITORY / "evaluate.py"), "--cfg-path", str(tmp_path / "run.yaml")]
    said = run(command, PYTHONPATH=":".join(sys.path))
    assert said.returncode == 0, said.stderr[-3000:]
    found = json.loads((tmp_path / "run" / "evaluate.json").read_text())["train"]
    units = list((tmp_path / "run" / "cleaned" / "shards").glob("*.tar"))
    assert found["samples"] == found["kept"] and found["failed"] == 0
    assert len(units) == -(-found["samples"] // 15)


def test_the_scorer_of_the_documentation_works(crawl, tmp_path):
    text = (REPOSITORY / "docs" / "capfilt.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    exec(compile(code, "docs/capfilt.md", "exec"), {})
    rows = clean(crawl, tmp_path / "out", scorers={"brevity": {}}, rule="brevity", threshold=0.3)
    assert all(row["brevity"] == pytest.approx(1 / 3) and row["kept"] for row in rows)  # "caption 000001"


@registry.register_scorer("breaks_for_test")
class Breaks(BaseScorer):
    """Fails on one sample, however often it is asked."""

    names = ("own",)
    asked = 0

    def score(self, request: ScoreRequest):
        if "000006" in request.keys:
            Breaks.asked += 1
            raise RuntimeError("out of luck")
        return [[(1.0,) for _ in own] for own in request.texts]


def test_a_shard_that_fails_again_and_again_is_set_aside_and_the_rest_goes_on(crawl, tmp_path):
    settings = CapFiltSettings(captions_per_image=0, scorers={"breaks_for_test": {}}, rule="own")
    output, failed = run_job(job_of(crawl, tmp_path / "out", settings), show=False)
    assert failed == [crawl.units[1].name] and Breaks.asked == 3
    assert output.markers().keys() == {crawl.units[0].name}
    note = output.folder / "failed" / f"{failed[0]}.txt"
    assert note.read_text() == "RuntimeError: out of luck\n"
    assert not (output.folder / "kept.json").exists()


def test_the_old_name_of_a_score_request_is_accepted_with_one_line(caplog):
    from lavis_lite.capfilt import scorers

    assert scorers.Asked is ScoreRequest
    assert [record.getMessage() for record in caplog.records] == [
        "lavis_lite.capfilt.scorers.Asked is now called ScoreRequest."
    ]
    with pytest.raises(AttributeError, match="no attribute 'Askd'"):
        _ = scorers.Askd
