"""Many processes train as one does: whole copies or parts of the weights, killed, restarted, gone on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml
from conftest import SHAPES, TINY_SIZES
from PIL import Image
from processes import REPOSITORY, run, train_command
from runs import assert_identical, comparable, final_checkpoint, kill_at_step, losses, read_jsonl
from torch import nn

from lavis_lite.common import distributed
from lavis_lite.runners.averaging import WeightAverage
from lavis_lite.runners.strategies import DDPStrategy

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SIZES = {**TINY_SIZES, "med_config": {**TINY_SIZES["med_config"], **NO_DROPOUT}}
CONTRAST = {"queue_size": 24, "negative_all_rank": True, **SIZES}
EYES = {split: {"name": "blip_image_eval"} for split in ("train", "eval")}
DATA = {"train_images": 10, "val_images": 4, "test_images": 6, "drawn_size": 32, "vis_processor": EYES}
RUN = {
    "init_lr": 1e-3,
    "max_epoch": 2,
    "batch_size_eval": 4,
    "num_workers": 0,
    "log_freq": 1,
    "device": "cpu",
    "report": False,
    "save_every_steps": 5,
    "save_freq": 100,
    "ema_decay": 0.9,
    "clip_grad_norm": 1.0,
}


def write(folder: Path, task: str, ranks: int = 1, **settings: Any) -> Path:
    """Write a run of `task` whose global batch is 8 images, on any number of ranks."""
    arch = {"retrieval": "blip_retrieval", "image_text_pretrain": "blip_pretrain"}[task]
    splits = {"valid_splits": [], "test_splits": []} if task == "image_text_pretrain" else {"k_test": 4}
    sections = {
        "imports": [SHAPES],
        "model": {"arch": arch, "model_type": "tiny", **CONTRAST},
        "datasets": {"shapes_retrieval": {**DATA, "folder": str(folder.parent / "drawn")}},
        "run": {
            **RUN,
            "task": task,
            "batch_size_train": 8 // ranks,
            "output_dir": str(folder),
            **splits,
            **settings,
        },
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(sections, sort_keys=False))
    return path


def train(folder: Path, task: str, ranks: int = 1, **settings: Any) -> Path:
    said = run(train_command(write(folder, task, ranks, **settings), ranks=ranks))
    assert said.returncode == 0, said.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def pretraining(runs: Path) -> dict[str, Path]:
    """The same pretraining by one process, by two with whole copies, and by two with parts."""
    task = "image_text_pretrain"
    return {
        "one": train(runs / "one", task),
        "ddp": train(runs / "ddp", task, ranks=2),
        "fsdp": train(runs / "fsdp", task, ranks=2, parallel="fsdp"),
    }


def series(output: Path, name: str) -> list[float]:
    return [line[name] for line in read_jsonl(output / "log.jsonl") if line["kind"] == "train"]


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_two_ranks_pretrain_as_one_does(pretraining, way):
    one, two = pretraining["one"], pretraining[way]
    assert len(losses(one)) == 12
    assert losses(two)[:6] == pytest.approx(losses(one)[:6], abs=1e-5)
    assert losses(two) == pytest.approx(losses(one), abs=1e-3)  # differences grow with the steps
    for name in ("loss_itc", "loss_itm", "loss_lm"):
        assert series(two, name)[:6] == pytest.approx(series(one, name)[:6], abs=1e-5)
    assert series(two, "gradient_norm")[:6] == pytest.approx(series(one, "gradient_norm")[:6], rel=1e-4)


def test_parts_and_whole_copies_leave_the_same_checkpoint(pretraining):
    """Weights, momentum copies, queues, optimizer and average, all in whole tensors under the same names."""
    whole, parts = final_checkpoint(pretraining["ddp"]), final_checkpoint(pretraining["fsdp"])
    for part in ("model", "average"):
        assert parts[part].keys() == whole[part].keys()
        for name, tensor in whole[part].items():
            torch.testing.assert_close(parts[part][name], tensor, rtol=0, atol=2e-3, msg=f"{part} {name}")
    assert parts["optimizer"]["state"].keys() == whole["optimizer"]["state"].keys()
    for index, state in whole["optimizer"]["state"].items():
        for name, tensor in state.items():
            assert parts["optimizer"]["state"][index][name].shape == tensor.shape


def test_a_run_in_parts_is_gone_on_with_by_one_process(pretraining, tmp_path):
    """A checkpoint of any mode loads in any other, with its optimizer and its average."""
    newest = sorted((pretraining["fsdp"] / "checkpoints").glob("checkpoint_0*.pth"))[-1]
    folder = train(tmp_path / "more", "image_text_pretrain", resume_ckpt_path=str(newest), max_epoch=3)
    assert series(folder, "step") == [13, 14, 15, 16, 17, 18]
    assert losses(folder)[0] < losses(pretraining["one"])[0]


def test_killed_pretraining_in_parts_ends_as_if_it_never_was(pretraining, runs):
    """Momentum copies, queues, optimizer and average bit for bit."""
    killed = runs / "killed_parts"
    command = train_command(write(killed, "image_text_pretrain", 2, parallel="fsdp"), ranks=2)
    kill_at_step(command, killed, 8)
    said = run(command)
    assert said.returncode == 0, said.stderr[-3000:]
    assert_identical(without_metrics(killed), without_metrics(pretraining["fsdp"]))


def test_a_killed_worker_is_started_again_by_the_launcher(pretraining, runs):
    """`torch.distributed.run --max-restarts`: one worker dies, all start again and go on."""
    folder = runs / "restarted"
    command = train_command(write(folder, "image_text_pretrain", 2), ranks=2)
    command.insert(command.index("--standalone"), "--max-restarts=1")
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    wait_for_step(folder, 7)
    os.kill(worker_of(process.pid), signal.SIGKILL)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said[-3000:]
    assert "Resumed at step" in said
    assert_identical(without_metrics(folder), without_metrics(pretraining["ddp"]))


def test_two_machines_train_by_the_same_script(pretraining, runs):
    """Two launchers with a process each, as on two machines, make the run of one with two."""
    folder = runs / "machines"
    path = write(folder, "image_text_pretrain", 2)
    command = [str(REPOSITORY / "run_scripts" / "launch.sh"), "train.py", "--cfg-path", str(path)]
    there = {
        "PYTHON": sys.executable,
        "NNODES": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "JOB_ID": "test",
    }
    launchers = [
        subprocess.Popen(
            command,
            env={**os.environ, **there, "NODE_RANK": str(number)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = [launcher.communicate(timeout=200)[1] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], said
    assert_identical(without_metrics(folder), without_metrics(pretraining["ddp"]))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def without_metrics(folder: Path) -> dict[str, Any]:
    """Return what `comparable` does, of a run that tests nothing."""
    (folder / "evaluate.json").write_text("{}")
    return comparable(folder)


def wait_for_step(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        log = folder / "log.jsonl"
        if log.exists() and f'"step": {step},' in log.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"{folder} never came to step {step}")


def worker_of(launcher: int) -> int:
    """Return the process id of the last worker of a launcher."""
    said = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(launcher)], capture_output=True, text=True, check=True
    )
    return int([line for line in said.stdout.splitlines() if "train.py" in line][-1].split()[0])


@pytest.fixture(scope="module")
def retrieval(runs: Path) -> Path:
    return train(runs / "find_one", "retrieval")


def test_two_ranks_train_and_test_retrieval_as_one_does(retrieval, runs):
    two = train(runs / "find_two", "retrieval", ranks=2)
    assert losses(two)[:6] == pytest.approx(losses(retrieval)[:6], abs=1e-5)
    found = [json.loads((folder / "evaluate.json").read_text())["test"] for folder in (retrieval, two)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_killed_retrieval_ends_as_if_it_never_was(retrieval, runs):
    killed = runs / "find_killed"
    command = train_command(write(killed, "retrieval"))
    kill_at_step(command, killed, 8)
    said = run(command)
    assert said.returncode == 0, said.stderr[-3000:]
    assert_identical(comparable(killed), comparable(retrieval))


def test_captions_of_a_run_in_parts_are_those_of_one_process(run_file):
    path = run_file.write(parallel="fsdp", optimizer="muon", max_epoch=1)
    said = run(train_command(path, ranks=2))
    assert said.returncode == 0, said.stderr[-3000:]
    alone = run_file.folder / "alone"
    options = [f"model.finetuned={run_file.output}", "model.load_finetuned=true", f"run.output_dir={alone}"]
    said = run(train_command(path, *options, script="evaluate.py"))
    assert said.returncode == 0, said.stderr[-3000:]
    captions = [
        json.loads((folder / "result" / "test.json").read_text()) for folder in (run_file.output, alone)
    ]
    assert captions[0] == captions[1]
    assert len(captions[0]) == 10


def test_unreadable_samples_are_counted_over_all_ranks(run_file, tmp_path):
    """The same decision at the same step on one rank and on two, with the samples listed."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(24):
        file = images / f"{number:02d}.png"
        if number % 6:
            Image.new("RGB", (32, 32), (10 * number, 0, 0)).save(file)
        else:
            file.write_bytes(b"no image")
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({file.name: "a red circle" for file in images.iterdir()}))
    run_file.sections["datasets"] = {
        "caption_json": {"images": str(images), "annotations": str(captions), "val_fraction": 0.0}
        | {"test_fraction": 0.0}
    }
    settings = {"valid_splits": [], "test_splits": [], "max_epoch": 1, "max_bad_fraction": 0.1}
    stops = []
    for ranks in (1, 2):
        output = tmp_path / str(ranks)
        path = run_file.write(**settings, batch_size_train=4 // ranks, output_dir=str(output))
        said = run(train_command(path, ranks=ranks))
        assert said.returncode == 1
        error = next(line for line in said.stderr.splitlines() if "TrainingError: " in line)
        error = error.partition("TrainingError: ")[2]
        assert "of 24 training samples cannot be read, more than run.max_bad_fraction (10.0%)" in error
        assert error.count(".png: ") == said.stderr.count("cannot be read and is replaced") >= 3
        state = final_checkpoint(output)
        bad = {tuple(rank["bad_samples"]) for rank in state["ranks"]}
        assert len(bad) == 1
        stops.append((state["state"]["step"], bad, error))
    assert stops[0] == stops[1]


class Branches(nn.Module):
    """A model of which a step may use one layer or the other."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

    def forward(self, chosen: int) -> torch.Tensor:
        return self.layers[chosen](torch.ones(1, 2)).sum()


@pytest.mark.parametrize(("unused", "chosen"), [("varying", (0, 1, 0)), ("same", (1, 1, 1))])
def test_a_model_says_which_weights_may_stay_unused(unused, chosen, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    steps = ",".join(map(str, chosen))
    said = run([*launcher, __file__, "unused", unused, steps], PYTHONPATH=":".join(sys.path))
    assert said.returncode == 0, said.stderr[-3000:]


def test_gradients_are_exchanged_once_a_window(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    said = run([*launcher, __file__, "count", "4", str(tmp_path)], PYTHONPATH=":".join(sys.path))
    assert said.returncode == 0, said.stderr[-3000:]
    assert (tmp_path / "0.txt").read_text() == (tmp_path / "1.txt").read_text() == "1"


def _train_with_unused_weights(unused: str, chosen: str) -> None:
    model = Branches()
    model.unused_parameters = unused
    strategy = DDPStrategy(model, torch.device("cpu"))
    for layer in map(int, chosen.split(",")):
        with strategy.gradient_sync(last=True):
            strategy.module(layer).backward()
        assert model.layers[layer].weight.grad is not None


def _count_exchanges(batches: int, folder: Path) -> None:
    """Train a window of `batches` on this rank, and write how often gradients were exchanged."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    exchanges: list[int] = []
    strategy = DDPStrategy(nn.Linear(2, 2), torch.device("cpu"))

    def note(state: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        exchanges.append(bucket.index())
        return allreduce_hook(state, bucket)

    strategy.module.register_comm_hook(None, note)
    for number in range(batches):
        with strategy.gradient_sync(last=number == batches - 1):
            strategy.module(torch.ones(1, 2)).sum().backward()
    (folder / f"{distributed.rank()}.txt").write_text(str(len(exchanges)))


def test_an_average_follows_the_weights_and_changes_places_with_them():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = WeightAverage(model, decay=0.5)
    nn.init.constant_(model.weight, 3.0)
    average.update(step=1000)
    with average.applied():
        assert model.weight.item() == 2.0
    assert model.weight.item() == 3.0
    assert average.state_dict()["weight"].item() == 2.0


if __name__ == "__main__":
    distributed.start("cpu")
    if sys.argv[1] == "unused":
        _train_with_unused_weights(*sys.argv[2:])
    else:
        _count_exchanges(int(sys.argv[2]), Path(sys.argv[3]))
    distributed.barrier()
    # So short a program may end while torch's threads still let go of Python objects, which aborts it.
    os._exit(0)
