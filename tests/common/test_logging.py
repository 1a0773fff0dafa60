"""What a run says about itself: values, progress, records and messages."""

from __future__ import annotations

import fcntl
import io
import json
import math
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import torch

from lavis_lite.common.logs.metrics import MetricLog
from lavis_lite.common.logs.progress import Progress
from lavis_lite.common.logs.writers import JsonlWriter, RunLog, as_number, read_jsonl


def strict_lines(path: Path) -> list[dict]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not strict JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text("utf-8").splitlines()]


def run_python(code: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=check)


class TestMetricLog:
    def test_the_mean_is_weighted(self) -> None:
        log = MetricLog()
        log.update({"loss": 1.0}, weight=3)
        log.update({"loss": torch.tensor(5.0)}, weight=torch.tensor(1))
        assert log.compute() == {"loss": 2.0}

    def test_an_update_reads_no_value(self) -> None:
        # a tensor on the meta device has no value: reading one raises
        unreadable = torch.tensor(1.0, device="meta")
        log = MetricLog()
        log.update({"loss": unreadable, "lr": 0.1}, weight=unreadable)
        log.update({"loss": unreadable, "lr": 0.1}, weight=2.0)
        log.update({"lr": unreadable})
        kept = log._totals
        assert {name: total.device.type for name, total in kept.items()} == {"loss": "meta", "lr": "meta"}
        with pytest.raises(RuntimeError):
            unreadable.item()

    @pytest.mark.gpu
    def test_an_update_does_not_wait_for_the_gpu(self) -> None:
        loss, weight = torch.tensor(2.0, device="cuda"), torch.tensor(3.0)
        log = MetricLog()
        torch.cuda.set_sync_debug_mode("error")
        try:
            log.update({"loss": loss, "lr": 0.1})
            log.update({"loss": loss, "lr": 0.1}, weight=loss)
            log.update({"loss": loss}, weight=weight)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert log.compute() == pytest.approx({"loss": 2.0, "lr": 0.1})

    def test_many_small_values_keep_double_precision(self) -> None:
        log = MetricLog()
        log.update({"loss": torch.tensor(2.0**24)})
        for _ in range(10):
            log.update({"loss": torch.tensor(1.0)})
        # in float32 each of the ten would be rounded away
        assert log.compute()["loss"] * 11 == 2.0**24 + 10

    def test_bfloat16_losses_and_graphs_are_taken(self) -> None:
        loss = torch.tensor([2.0], dtype=torch.bfloat16, requires_grad=True) * 2
        log = MetricLog()
        log.update({"loss": loss})
        assert log.compute() == {"loss": 4.0}
        assert not log._totals["loss"].requires_grad

    def test_a_nan_of_no_weight_is_ignored_and_one_of_some_weight_is_shown(self) -> None:
        log = MetricLog()
        log.update({"loss": math.nan}, weight=0)
        log.update({"loss": 3.0})
        assert log.compute() == {"loss": 3.0}
        log.update({"loss": math.nan})
        assert math.isnan(log.compute()["loss"])

    def test_a_name_without_any_weight_is_left_out(self) -> None:
        log = MetricLog()
        log.update({"loss": 1.0}, weight=0)
        assert log.compute() == {}

    def test_a_vector_is_refused_with_its_name_and_shape(self) -> None:
        with pytest.raises(ValueError, match=r"'loss' has shape \(4,\)"):
            MetricLog().update({"loss": torch.zeros(4)})

    def test_ranks_that_saw_other_orders_and_names_reduce_to_the_mean_of_all(self) -> None:
        first, second, empty = MetricLog(), MetricLog(), MetricLog()
        first.update({"loss": 1.0, "accuracy": 0.0}, weight=1)
        second.update({"accuracy": 1.0, "loss": 4.0}, weight=2)
        stacks: list[torch.Tensor] = []
        for log in (first, second, empty):
            log.compute(lambda stack: stacks.append(stack) or stack, names=("loss", "accuracy"))
        total = sum(stacks)
        assert total.shape == (2, 2)
        expected = {"accuracy": pytest.approx(2 / 3), "loss": 3.0}
        assert empty.compute(lambda stack: total, names=("loss", "accuracy")) == expected

    def test_nothing_is_left_after_a_reset(self) -> None:
        log = MetricLog()
        log.update({"loss": 1.0})
        log.reset()
        assert log.compute() == {}

    def test_a_resumed_log_ends_bit_identical(self, tmp_path: Path) -> None:
        values = torch.rand(50, generator=torch.Generator().manual_seed(3))
        straight, first_half, resumed = MetricLog(), MetricLog(), MetricLog()
        for i, value in enumerate(values):
            straight.update({"loss": value, "lr": float(value) / 3}, weight=i % 7)
        for i, value in enumerate(values[:23]):
            first_half.update({"loss": value, "lr": float(value) / 3}, weight=i % 7)
        torch.save(first_half.state_dict(), tmp_path / "state.pt")
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        for i, value in enumerate(values[23:], start=23):
            resumed.update({"loss": value, "lr": float(value) / 3}, weight=i % 7)
        assert resumed.compute() == straight.compute()
        for name, total in straight.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], total)

    def test_a_saved_state_does_not_change_with_later_updates(self) -> None:
        log = MetricLog()
        log.update({"loss": 1.0})
        state = log.state_dict()
        log.update({"loss": 9.0})
        assert state["loss"].tolist() == [1.0, 1.0]

    def test_a_foreign_state_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"'loss'.*sum and a weight"):
            MetricLog().load_state_dict({"loss": torch.zeros(3)})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestProgress:
    def test_a_log_file_gets_one_line_in_each_interval_and_one_at_the_end(self) -> None:
        stream, clock = io.StringIO(), Clock()
        with Progress(100, "train", stream=stream, clock=clock) as progress:
            for _ in range(100):
                clock.now += 0.25
                progress.advance(loss=2.0)
        assert stream.getvalue().splitlines() == [
            "train: 40% (40/100), 00:10 elapsed, ETA 00:15,  4.00it/s, loss 2",
            "train: 80% (80/100), 00:20 elapsed, ETA 00:05,  4.00it/s, loss 2",
            "train: 100% (100/100), 00:25 elapsed, ETA 00:00,  4.00it/s, loss 2",
        ]

    def test_a_resumed_loop_takes_its_remaining_time_from_its_own_steps(self) -> None:
        stream, clock = io.StringIO(), Clock()
        with Progress(1000, "train", initial=500, stream=stream, clock=clock) as progress:
            clock.now += 100
            progress.advance(50)
        assert stream.getvalue() == "train: 55% (550/1000), 01:40 elapsed, ETA 15:00,  2.00s/it\n"

    def test_a_terminal_gets_a_bar_with_the_latest_values(self) -> None:
        stream, clock = Terminal(), Clock()
        with Progress(10, "train", initial=4, stream=stream, clock=clock) as progress:
            for _ in range(6):
                clock.now += 1
                progress.advance(loss=torch.tensor(1.5))
        last = stream.getvalue().strip().split("\r")[-1]
        assert "train: 100%" in last and "10/10" in last and "loss 1.5" in last

    def test_other_ranks_show_nothing(self) -> None:
        stream, clock = io.StringIO(), Clock()
        with Progress(10, "train", enabled=False, stream=stream, clock=clock) as progress:
            clock.now += 100
            progress.advance(10, loss=1.0)
        assert stream.getvalue() == ""

    def test_tensors_are_read_only_when_a_line_is_due(self) -> None:
        stream, clock = io.StringIO(), Clock()
        with Progress(2, "train", stream=stream, clock=clock) as progress:
            progress.advance(loss=torch.tensor(0.0, device="meta"))  # reading this would raise
            clock.now += 10
            progress.advance(loss=torch.tensor(0.5))
        assert stream.getvalue().endswith("loss 0.5\n")

    def test_an_unknown_total_still_counts(self) -> None:
        stream, clock = io.StringIO(), Clock()
        with Progress(None, "caption", stream=stream, clock=clock) as progress:
            clock.now += 10
            progress.advance(30)
        assert stream.getvalue() == "caption: 30, 00:10 elapsed,  3.00it/s\n"

    def test_an_error_passes_through_and_the_line_says_how_far_it_came(self) -> None:
        stream = io.StringIO()
        with pytest.raises(KeyError), Progress(10, "train", stream=stream, clock=Clock()) as progress:
            progress.advance(3, loss=torch.tensor(0.0, device="meta"))
            raise KeyError("batch")
        assert stream.getvalue() == "train: 30% (3/10), 00:00 elapsed, ETA ?, ?it/s\n"


class TestJsonlWriter:
    def test_each_line_is_strict_json(self, tmp_path: Path) -> None:
        writer = JsonlWriter(tmp_path / "log.jsonl")
        writer.write({"step": 1, "loss": math.nan, "low": -math.inf, "nested": {"high": [math.inf, 0.5]}})
        assert strict_lines(tmp_path / "log.jsonl") == [
            {"step": 1, "loss": "NaN", "low": "-Infinity", "nested": {"high": ["Infinity", 0.5]}}
        ]

    def test_texts_with_line_separators_and_broken_unicode_stay_on_one_line(self, tmp_path: Path) -> None:
        text = "a\nb\r\u2028\u0085c \ud800 猫"
        JsonlWriter(tmp_path / "log.jsonl").write({"step": 1, "text": text})
        assert strict_lines(tmp_path / "log.jsonl") == [{"step": 1, "text": text}]

    def test_tensors_and_paths_are_taken(self, tmp_path: Path) -> None:
        writer = JsonlWriter(tmp_path / "log.jsonl")
        writer.write({"step": torch.tensor(3), "loss": torch.tensor(0.5), "folder": Path("a/b")})
        assert strict_lines(writer.path) == [{"step": 3, "loss": 0.5, "folder": "a/b"}]

    def test_a_value_that_json_cannot_hold_is_named_and_nothing_is_written(self, tmp_path: Path) -> None:
        writer = JsonlWriter(tmp_path / "log.jsonl")
        with pytest.raises(TypeError, match=r"record\.model\.device"):
            writer.write({"step": 1, "model": {"device": object()}})
        assert writer.path.read_bytes() == b""

    def test_a_last_line_cut_anywhere_is_removed_and_the_rest_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        whole, last = b'{"step": 1}\n', b'{"step": 2, "loss": 0.25}\n'
        for length in range(len(last)):
            path.write_bytes(whole + last[:length])
            JsonlWriter(path).write({"step": 2})
            assert strict_lines(path) == [{"step": 1}, {"step": 2}]

    def test_a_huge_half_line_is_cut_too(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        path.write_bytes(b'{"step": 1}\n{"text": "' + b"x" * 200_000)
        JsonlWriter(path).close()
        assert path.read_bytes() == b'{"step": 1}\n'

    def test_a_file_that_is_one_half_line_becomes_empty(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        path.write_bytes(b'{"ste')
        JsonlWriter(path).close()
        assert path.read_bytes() == b""

    def test_a_killed_writer_leaves_lines_that_a_second_one_can_continue(self, tmp_path: Path) -> None:
        code = (
            "import sys, itertools\n"
            "from pathlib import Path\n"
            "from lavis_lite.common.logs.writers import JsonlWriter\n"
            "writer = JsonlWriter(Path(sys.argv[1]))\n"
            "for step in itertools.count():\n"
            "    writer.write({'step': step, 'text': 'x' * 5000})\n"
        )
        path = tmp_path / "log.jsonl"
        process = subprocess.Popen([sys.executable, "-c", code, str(path)])
        try:
            deadline = time.monotonic() + 60
            while not (path.exists() and path.stat().st_size > 100_000) and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        JsonlWriter(path).write({"step": -1})
        steps = [line["step"] for line in strict_lines(path)]
        assert steps == [*range(len(steps) - 1), -1] and len(steps) > 10

    def test_lines_beyond_a_step_are_dropped_and_writing_goes_on(self, tmp_path: Path) -> None:
        writer = JsonlWriter(tmp_path / "log.jsonl")
        for step in (0, 10, 20, 20, 30):
            writer.write({"step": step})
        writer.write({"text": "belongs to no step"})
        assert writer.truncate_after(15) == 3
        writer.write({"step": 20, "again": True})
        kept = [{"step": 0}, {"step": 10}, {"text": "belongs to no step"}, {"step": 20, "again": True}]
        assert strict_lines(writer.path) == kept

    def test_a_kill_while_lines_are_dropped_leaves_the_old_file(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        writer = JsonlWriter(path)
        for step in range(5):
            writer.write({"step": step})
        code = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from lavis_lite.common.logs.writers import JsonlWriter\n"
            "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
            "JsonlWriter(Path(sys.argv[1])).truncate_after(2)\n"
        )
        assert run_python(code, path, check=False).returncode == -signal.SIGKILL
        assert [line["step"] for line in strict_lines(path)] == [0, 1, 2, 3, 4]
        assert JsonlWriter(path).truncate_after(2) == 2

    @pytest.mark.parametrize("damage", [b'{"st', b"\xff\x00", b"[1]", b"[" * 99999, b'{"step": "2"}'])
    def test_a_damaged_line_in_the_middle_is_set_aside_and_named(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
    ) -> None:
        path = tmp_path / "log.jsonl"
        path.write_bytes(b'{"step": 1}\n' + damage + b'\n{"step": 2}\n{"step": 3}\n')
        assert JsonlWriter(path).truncate_after(2) == 1
        assert [line["step"] for line in read_jsonl(path)] == [1, 2]
        assert (tmp_path / "log.jsonl.damaged").read_bytes() == damage + b"\n"
        assert "1 damaged lines (2) were moved to log.jsonl.damaged" in caplog.text

    def test_a_damaged_line_is_named_to_a_reader(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        path.write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
        with pytest.raises(ValueError, match=r"log\.jsonl: line 2 is not JSON"):
            read_jsonl(path)

    def test_a_new_start_keeps_the_log_of_the_one_before_in_another_file(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        JsonlWriter(path).write({"step": 1})
        writer = JsonlWriter(path)
        assert writer.start_over() == tmp_path / "log.jsonl.previous"
        assert writer.start_over() is None
        writer.write({"step": 1, "again": True})
        assert read_jsonl(path) == [{"step": 1, "again": True}]
        assert read_jsonl(tmp_path / "log.jsonl.previous") == [{"step": 1}]

    def test_a_reader_skips_a_line_still_being_written(self, tmp_path: Path) -> None:
        path = tmp_path / "log.jsonl"
        path.write_bytes(b'{"step": 1, "loss": "NaN"}\n{"step": 2, "lo')
        (line,) = read_jsonl(path)
        assert math.isnan(as_number(line["loss"]))


class TestRunLog:
    def test_a_line_says_what_it_is_and_when(self, tmp_path: Path) -> None:
        with RunLog(tmp_path, tensorboard=False) as log:
            log.write("valid", 10, {"cider": 1.25}, epoch=1, split="val")
        (line,) = strict_lines(tmp_path / "log.jsonl")
        assert abs(line.pop("time") - time.time()) < 60
        assert line == {"kind": "valid", "step": 10, "epoch": 1, "split": "val", "cider": 1.25}

    def test_an_unknown_kind_names_the_nearest(self, tmp_path: Path) -> None:
        with RunLog(tmp_path) as log, pytest.raises(ValueError, match=r"'validation'.*Did you mean valid"):
            log.write("validation", 1, {})

    def test_a_value_cannot_take_the_name_of_the_step(self, tmp_path: Path) -> None:
        with RunLog(tmp_path) as log, pytest.raises(ValueError, match="its own step"):
            log.write("train", 1, {"step": 3})

    def test_other_ranks_make_no_file(self, tmp_path: Path) -> None:
        with RunLog(tmp_path / "run", enabled=False) as log:
            log.write("train", 1, {"loss": 1.0})
            log.resume_after(0)
        assert not (tmp_path / "run").exists()

    def test_tensorboard_shows_a_resumed_run_as_one_curve(self, tmp_path: Path) -> None:
        with RunLog(tmp_path) as log:
            for step in (1, 2, 3):
                log.write("train", step, {"loss": float(step), "note": "no number"}, epoch=0)
        with RunLog(tmp_path) as log:
            log.resume_after(1)
            for step in (2, 3):
                log.write("train", step, {"loss": 10.0 * step}, epoch=0)
            log.write("valid", 3, {"cider": 0.5}, split="val")
        curves = tensorboard_curves(tmp_path / "tensorboard")
        assert curves == {"train/loss": [(1, 1.0), (2, 20.0), (3, 30.0)], "val/cider": [(3, 0.5)]}
        assert [(line["step"], line.get("loss")) for line in read_jsonl(tmp_path / "log.jsonl")] == [
            (1, 1.0),
            (2, 20.0),
            (3, 30.0),
            (3, None),
        ]

    def test_a_kill_loses_no_point_of_tensorboard(self, tmp_path: Path) -> None:
        code = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from lavis_lite.common.logs.writers import TensorBoardWriter\n"
            "writer = TensorBoardWriter(Path(sys.argv[1]))\n"
            "for step in range(200):\n"
            "    writer.add({'loss': 1.0}, step)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        assert run_python(code, tmp_path, check=False).returncode == -signal.SIGKILL
        assert len(tensorboard_curves(tmp_path)["loss"]) == 200


def tensorboard_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


SPEAK = """
import logging, sys
from lavis_lite.common.logs.setup import setup_logging
rank, folder = int(sys.argv[1]), sys.argv[2]
setup_logging(rank, folder)
setup_logging(rank, folder)
ours = logging.getLogger("lavis_lite.tasks")
ours.debug("detail")
ours.info("started")
ours.warning("bad sample \\ud800")
logging.getLogger("other").info("chatter")
logging.getLogger("other").warning("trouble")
print("plain")
"""


class TestSetupLogging:
    def test_rank_0_tells_the_terminal_and_the_file_each_message_once(self, tmp_path: Path) -> None:
        result = run_python(SPEAK, 0, tmp_path)
        messages = ["started", "WARNING bad sample \\ud800", "WARNING trouble"]
        assert [line.split(" ", 1)[1] for line in result.stderr.splitlines()] == messages
        in_file = (tmp_path / "run.log").read_text("utf-8").splitlines()
        assert [line.split(" ", 2)[2] for line in in_file] == messages
        assert result.stdout == "plain\n"

    def test_other_ranks_only_warn_and_say_who_they_are(self, tmp_path: Path) -> None:
        result = run_python(SPEAK, 2, tmp_path / "run")
        said = [line.split(" ", 1)[1] for line in result.stderr.splitlines()]
        assert said == ["[rank 2] WARNING bad sample \\ud800", "[rank 2] WARNING trouble"]
        assert not (tmp_path / "run").exists()

    def test_a_message_during_a_bar_does_not_tear_it(self, tmp_path: Path) -> None:
        code = (
            "import logging, sys\n"
            "from lavis_lite.common.logs.progress import Progress\n"
            "from lavis_lite.common.logs.setup import setup_logging\n"
            "setup_logging()\n"
            "with Progress(2, 'train') as progress:\n"
            "    logging.getLogger('lavis_lite').info('saved')\n"
            "    progress.advance(2)\n"
        )
        shown = run_on_terminal([sys.executable, "-c", code])
        assert any(line.strip("\r\x1b[K ").endswith(" saved") for line in shown.split("\n"))
        assert "train: 100%" in shown
        for line in shown.split("\n"):
            last_write = line.rstrip("\r").split("\r")[-1]
            assert not ("saved" in last_write and "train" in last_write)


def run_on_terminal(command: list[str]) -> str:
    """Return what `command` shows on a terminal of its own."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # tqdm fits its bar to this
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = bytearray()
        while chunk := _read_terminal(ours):
            shown += chunk
    os.close(ours)
    assert process.returncode == 0
    return shown.decode()


def _read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1024)
    except OSError:  # Linux's way to say that the other end is closed
        return b""
