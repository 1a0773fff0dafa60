"""CapFilt from shards to shards: nothing lost, nothing doubled, whoever is killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from file_server import running_server
from processes import REPOSITORY, run
from pyarrow import parquet
from shards import jpeg, write_shards, write_tar

from lavis_lite import load_model
from lavis_lite.capfilt.captioner import Captioner
from lavis_lite.capfilt.job import Job
from lavis_lite.capfilt.output_reader import CapFiltError
from lavis_lite.capfilt.scorers import Scorers
from lavis_lite.capfilt.scorers import load_model as load_model_with_processor
from lavis_lite.capfilt.settings import CapFiltSettings
from lavis_lite.capfilt.sources import Input, from_shards
from lavis_lite.capfilt.workers import run_job
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.datasets.web.dataset import WebDataset
from lavis_lite.datasets.web.shards import list_shards, raw_samples

SETTINGS = {"batch_size": 4, "captions_per_image": 2, "threshold": 0.25}
SETTINGS |= {"generation": {"use_nucleus_sampling": True, "max_length": 8, "min_length": 3}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    paths = {}
    for name in ("blip_caption", "blip_image_text_matching"):
        model = load_model(name, "tiny")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        paths[name] = model.save_salesforce(folder / f"{name}.pth")
    return paths


@pytest.fixture
def crawl(tmp_path) -> Path:
    return write_shards(tmp_path / "crawl", [6, 5, 7, 4])


def clean(
    crawl: Path | Input,
    output: Path,
    weights: dict[str, Path],
    scorer: str = "blip_image_text_matching",
    **changes,
):
    blip = {"model": scorer, "model_type": "tiny", "checkpoint": str(weights[scorer])}
    settings = CapFiltSettings(**{**SETTINGS, "scorers": {"blip": blip}, **changes})
    cpu = torch.device("cpu")
    model = load_model_with_processor("blip_caption", "tiny", str(weights["blip_caption"]), cpu)
    crawl = crawl if isinstance(crawl, Input) else from_shards(list_shards([str(crawl)]))
    job = Job(crawl, Captioner(*model, settings, cpu), Scorers(settings, cpu), settings, output)
    return run_job(job, show=False)


def command(crawl: Path, output: Path, weights: dict[str, Path], *more: str) -> list[str]:
    words = [sys.executable, "-m", "lavis_lite", "capfilt", "run", str(crawl), "-o", str(output)]
    words += ["--captioner-type", "tiny", "--captioner", str(weights["blip_caption"]), "--device", "cpu"]
    words += ["--filter-type", "tiny", "--filter", str(weights["blip_image_text_matching"]), *more]
    words += [
        "--options",
        "batch_size=4",
        "captions_per_image=2",
        "threshold=0.25",
        "generation.use_nucleus_sampling=true",
    ]
    return [*words, "generation.max_length=8", "generation.min_length=3"]


def contents(output: Path) -> dict[str, bytes | str]:
    """Return everything that a run leaves, for comparison byte by byte."""
    files = [*output.glob("shards/*"), *output.glob("done/*.json"), output / "kept.json"]
    found = {str(file.relative_to(output)): file.read_bytes() for file in files}
    for table in output.glob("scores/*.parquet"):
        found[table.name] = json.dumps(parquet.read_table(table).to_pylist())
    return found


@pytest.fixture
def undisturbed(crawl, weights, tmp_path) -> Path:
    output, failed = clean(crawl, tmp_path / "undisturbed", weights)
    assert not failed
    return output.folder


def test_every_sample_and_every_text_is_accounted_for(undisturbed):
    rows = parquet.read_table(undisturbed / "scores.parquet").to_pylist()
    by_key: dict[str, list] = {}
    for row in rows:
        by_key.setdefault(row["key"], []).append(row)
    assert sorted(by_key) == [f"{n:06d}" for n in range(22)]
    for key, own in by_key.items():
        assert [row["source"] for row in own] == ["web", "synthetic", "synthetic"]
        assert own[0]["text"] == f"caption {key}"
        assert all(0 <= row["itm"] <= 1 and -1.001 <= row["itc"] <= 1.001 for row in own)
    for marker in (undisturbed / "done").glob("*.json"):
        counts = json.loads(marker.read_text())
        assert counts["samples"] == counts["kept"] + counts["filtered"] + counts["failed"]


@pytest.mark.slow
def test_a_finished_shard_says_what_it_was_made_of_and_with(undisturbed, crawl, weights, tmp_path):
    before = json.loads((undisturbed / "done" / "shard-000.json").read_text())
    other_threshold, _ = clean(crawl, tmp_path / "other", weights, threshold=0.6)
    after = other_threshold.markers()["shard-000"]
    assert after["input"] == before["input"] and after["made_with"] != before["made_with"]
    write_shards(crawl, [5, 5, 7, 4])
    other_input, _ = clean(crawl, tmp_path / "fewer", weights)
    fewer = other_input.markers()["shard-000"]
    assert fewer["input"] != before["input"] and fewer["made_with"] == before["made_with"]


def test_cleaned_shards_hold_the_images_untouched_and_train_directly(undisturbed, crawl):
    before = {
        raw["__key__"]: raw["jpg"]
        for shard in list_shards([str(crawl)])
        for raw in raw_samples(shard, pytest.fail)
    }
    shards = list_shards([str(undisturbed / "shards")])
    after = [raw for shard in shards for raw in raw_samples(shard, pytest.fail)]
    assert after and all(raw["jpg"] == before[raw["__key__"]] for raw in after)
    about = json.loads(after[0]["json"])
    assert about["texts"] == [c["text"] for c in about["capfilt"] if c["kept"]] and len(about["capfilt"]) == 3
    data = WebDataset(shards, lambda image: torch.zeros(1), str, text_key="texts")
    assert len(data) == len(after) and data.item(after[0])["text_input"] in about["texts"]


def test_scores_are_those_of_the_model(undisturbed, weights, crawl):
    import io

    from PIL import Image

    from lavis_lite import load_model_and_preprocess

    model, image_processors, _ = load_model_and_preprocess(
        "blip_image_text_matching", "tiny", is_eval=True, checkpoint=weights["blip_image_text_matching"]
    )
    (row, *_) = parquet.read_table(undisturbed / "scores.parquet").to_pylist()
    raw = next(raw_samples(list_shards([str(crawl)])[0], pytest.fail))
    image = image_processors["eval"](Image.open(io.BytesIO(raw["jpg"])))
    samples = {"image": image[None], "text_input": [row["text"]]}
    with torch.no_grad():
        assert row["itm"] == pytest.approx(model(samples).softmax(1)[0, 1].item(), abs=1e-5)
        assert row["itc"] == pytest.approx(model(samples, match_head="itc").item(), abs=1e-5)


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"top_q": 0.9}, r"generation\.top_q is not a setting of the captioner\. Did you mean top_p"),
        ({"use_nucleus_sampling": True, "top_p": 1.5}, "top_p"),
        ({"use_nucleus_sampling": False, "num_beams": 1}, "captions"),
    ],
)
def test_generation_that_cannot_be_is_refused_before_the_first_shard(
    generation, message, crawl, weights, tmp_path
):
    with pytest.raises(ConfigError, match=message):
        clean(crawl, tmp_path / "out", weights, generation=generation)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_captions_are_the_same_whatever_the_batch_size(undisturbed, crawl, weights, tmp_path):
    before = parquet.read_table(undisturbed / "scores.parquet").to_pylist()
    for batch_size in (1, 5):
        output, _ = clean(crawl, tmp_path / str(batch_size), weights, batch_size=batch_size)
        after = parquet.read_table(output.folder / "scores.parquet").to_pylist()
        for name in ("key", "source", "text", "kept"):
            assert [row[name] for row in after] == [row[name] for row in before]
        for name in ("itm", "itc"):
            assert [row[name] for row in after] == pytest.approx([row[name] for row in before], abs=1e-5)


def test_workers_killed_at_any_moment_change_nothing(weights, tmp_path):
    crawl = write_shards(tmp_path / "crawl", [6, 5, 7, 4] * 8)
    undisturbed, failed = clean(crawl, tmp_path / "undisturbed", weights)
    assert not failed
    output = tmp_path / "chaos"
    draw = random.Random(0)
    interrupted = 0
    for workers in (2, 1, 3):
        started = [start_worker(crawl, output, weights) for _ in range(workers)]
        wait_for_another_shard(output)
        for process in started:
            time.sleep(draw.random() * 0.2)
            interrupted += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert interrupted >= 4
    last = [start_worker(crawl, output, weights) for _ in range(2)]
    assert [process.wait() for process in last] == [0, 0]
    assert contents(output) == contents(undisturbed.folder)
    assert sum(counts["samples"] for counts in undisturbed.markers().values()) == 176


def start_worker(crawl: Path, output: Path, weights: dict[str, Path]) -> subprocess.Popen:
    words = command(crawl, output, weights)
    return subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_another_shard(output: Path) -> None:
    """Wait until some worker has finished a shard more than are finished now."""
    before = len(list(output.glob("done/*.json")))
    deadline = time.monotonic() + 60
    while len(list(output.glob("done/*.json"))) == before and time.monotonic() < deadline:
        time.sleep(0.02)


def test_a_finished_shard_is_never_done_again(undisturbed, crawl, weights):
    before = {file: file.stat().st_mtime_ns for file in undisturbed.glob("shards/*.tar")}
    clean(crawl, undisturbed, weights)
    assert {file: file.stat().st_mtime_ns for file in undisturbed.glob("shards/*.tar")} == before


def test_other_settings_are_refused_with_the_difference(undisturbed, crawl, weights):
    with pytest.raises(CapFiltError, match=r"begun with other settings.*threshold"):
        clean(crawl, undisturbed, weights, threshold=0.6)


def test_deciding_anew_at_the_same_threshold_gives_the_same_pairs(undisturbed, tmp_path):
    words = [sys.executable, "-m", "lavis_lite", "capfilt", "refilter", str(undisturbed), "-o"]
    assert run([*words, str(tmp_path / "same.json")]).returncode == 0
    assert json.loads((tmp_path / "same.json").read_text()) == json.loads(
        (undisturbed / "kept.json").read_text()
    )
    assert run([*words, str(tmp_path / "all.json"), "--threshold", "0"]).returncode == 0
    rows = parquet.read_table(undisturbed / "scores.parquet").to_pylist()
    sane = [row for row in rows if not row["reason"] or row["reason"].startswith("itm")]
    assert len(json.loads((tmp_path / "all.json").read_text())) == len(sane)


def test_what_cannot_be_used_is_counted_with_its_reason(weights, tmp_path):
    samples = [
        {"key": "good", "jpg": jpeg(1), "txt": b"a text", "json": b'{"url": "http://there/1.jpg"}'},
        {"key": "torn", "jpg": jpeg(1)[:120], "txt": b"a text"},
        {"key": "bare", "txt": b"a text"},
        {"key": "private", "jpg": jpeg(1), "txt": b"a text", "json": b'{"opt_out": "noai"}'},
    ]
    crawl = write_tar(tmp_path / "crawl" / "a.tar", samples).parent
    output, _ = clean(crawl, tmp_path / "out", weights, threshold=0.0)
    marker = output.markers()["a"]
    assert {name: value for name, value in marker.items() if isinstance(value, int)} == {
        "samples": 4,
        "kept": 1,
        "filtered": 0,
        "failed": 3,
        "written": 1,
    }
    pairs = json.loads((output.folder / "kept.json").read_text())
    assert {pair["url"] for pair in pairs} == {"http://there/1.jpg"} and pairs[0]["caption"] == "a text"
    rows = parquet.read_table(output.folder / "scores.parquet").to_pylist()
    reasons = {row["key"]: row["reason"] for row in rows if not row["source"]}
    assert reasons["private"] == "opted out" and "no image" in reasons["bare"] and "torn" in reasons["torn"]


def test_a_shard_that_cannot_be_reached_is_set_aside_and_tried_again_by_the_same_command(
    crawl, weights, tmp_path
):
    with running_server() as server:
        server.behaviour.content = (crawl / "shard-000.tar").read_bytes()
        server.behaviour.answers = [(404, {})] * 3
        given = from_shards(list_shards([server.url]))
        output, failed = clean(given, tmp_path / "out", weights)
        assert failed == ["captions.json"] and not output.markers()
        assert "answers 404" in (output.folder / "failed" / "captions.json.txt").read_text()
        output, failed = clean(given, tmp_path / "out", weights)
    assert not failed and output.markers()["captions.json"]["samples"] == 6
    assert not list((output.folder / "failed").iterdir())


def test_a_shard_with_fewer_samples_than_its_index_says_is_named(crawl, weights, tmp_path):
    (crawl / "index.json").write_text(json.dumps({"shards": [{"name": "shard-001.tar", "samples": 9}]}))
    output, _ = clean(crawl, tmp_path / "out", weights)
    (damage,) = output.markers()["shard-001"]["damage"]
    assert damage.endswith("holds 5 samples, its index says 9")


def test_a_shard_that_breaks_off_gives_its_good_samples_and_is_named(crawl, weights, tmp_path):
    shard = sorted(crawl.glob("*.tar"))[2]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 3])
    output, failed = clean(crawl, tmp_path / "out", weights)
    marker = output.markers()[shard.stem]
    assert not failed and 0 < marker["samples"] < 7 and shard.name in marker["damage"][0]


def test_a_model_that_cannot_match_is_no_filter(crawl, weights, tmp_path):
    with pytest.raises(ConfigError, match="cannot match"):
        clean(crawl, tmp_path / "out", weights, scorer="blip_caption")


def test_several_processes_of_one_launcher_share_the_shards(undisturbed, crawl, weights, tmp_path):
    words = command(crawl, tmp_path / "shared", weights)[1:]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    said = run([*launcher, *words])
    assert said.returncode == 0, said.stderr[-2000:]
    assert contents(tmp_path / "shared") == contents(undisturbed)


def test_ray_gives_the_same_output(undisturbed, crawl, weights, tmp_path):
    said = run(
        command(crawl, tmp_path / "ray", weights, "--ray", "2"), RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0"
    )
    assert said.returncode == 0, said.stderr[-3000:]
    assert contents(tmp_path / "ray") == contents(undisturbed)


def test_status_says_how_fast_it_went_and_how_long_the_rest_takes(undisturbed):
    said = run([sys.executable, "-m", "lavis_lite", "capfilt", "status", str(undisturbed)])
    assert "4 shards done, 0 set aside" in said.stdout
    assert "images a second and worker; 22 in" in said.stdout
    next((undisturbed / "done").glob("*.json")).unlink()
    shorter = run([sys.executable, "-m", "lavis_lite", "capfilt", "status", str(undisturbed)])
    assert "1 of 4 units to do: about" in shorter.stdout


def test_each_kept_text_may_be_a_sample_of_its_own(crawl, weights, tmp_path):
    output, _ = clean(crawl, tmp_path / "out", weights, threshold=0.0, sample_per="text")
    raws = [
        raw
        for shard in list_shards([str(output.folder / "shards")])
        for raw in raw_samples(shard, pytest.fail)
    ]
    rows = parquet.read_table(output.folder / "scores.parquet").to_pylist()
    kept = [(row["key"], row["text"]) for row in rows if row["kept"]]
    assert [(raw["__key__"].rpartition("-")[0], raw["txt"].decode()) for raw in raws] == kept
    assert sum(shard.samples for shard in list_shards([str(output.folder / "shards")])) == len(kept)
