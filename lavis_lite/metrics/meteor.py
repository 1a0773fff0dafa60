"""METEOR 1.5 as COCO computes it, by the Java program, which is asked over its pipes."""

from __future__ import annotations

import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lavis_lite.metrics.java import Java, JavaProgramError, last_words, package_file, started

IMPLEMENTATION = "meteor-1.5.jar"
MEMORY = "2G"
_SECONDS_TO_END = 2.0
_SEPARATOR = " ||| "


def meteor_files() -> tuple[Path, Path]:
    """Return the program and its table of paraphrases.

    Raises:
        JavaMissingError: one of them does not exist.
    """
    return package_file("meteor", IMPLEMENTATION), package_file("meteor", "data", "paraphrase-en.gz")


def score_meteor(
    java: Java, references: Sequence[Sequence[str]], candidates: Sequence[str], timeout_seconds: float
) -> tuple[float, list[float]]:
    """Return METEOR over all captions, and of each.

    Args:
        references: of each image, tokenized.
        candidates: one for each image, tokenized.
        timeout_seconds: for all of it.

    Raises:
        JavaProgramError: the program failed, hung or gave an answer that is not a number.
    """
    program, paraphrases = meteor_files()
    # The program does not find the table by itself where its path contains blanks.
    arguments = [f"-Xmx{MEMORY}", "-jar", str(program), "-", "-", "-stdio", "-l", "en", "-norm"]
    arguments += ["-a", str(paraphrases)]
    with tempfile.TemporaryDirectory(prefix="lavis_lite_meteor_") as name:
        folder = Path(name)
        command = java.command(arguments)
        with started(command, folder, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
            conversation = _Conversation(process, folder, timeout_seconds)
            questions = [
                _SEPARATOR.join(["SCORE", *map(_without_separators, texts), _without_separators(candidate)])
                for texts, candidate in zip(references, candidates, strict=True)
            ]
            statistics = conversation.ask(questions, answers=len(questions))
            # The answer is the score of each caption, and then the one of all.
            answers = conversation.ask([_SEPARATOR.join(["EVAL", *statistics])], answers=len(questions) + 1)
            scores = [conversation.number(answer) for answer in answers]
    return scores[-1], scores[:-1]


def _without_separators(caption: str) -> str:
    return caption.replace("|||", "").replace("  ", " ")


class _Conversation:
    """Lines to a program and lines back, until a deadline.

    Reading and writing have a thread each, since either side may wait for the other to read.
    """

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, timeout_seconds: float) -> None:
        self._process, self._folder, self._timeout = process, folder, timeout_seconds
        self._deadline = time.monotonic() + timeout_seconds
        self._answers: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, questions: Sequence[str], answers: int) -> list[str]:
        """Send each question as a line and return so many lines of answers."""
        threading.Thread(target=self._write, args=(questions,), daemon=True).start()
        return [self._next_answer() for _ in range(answers)]

    def number(self, answer: str) -> float:
        """Return an answer as a number.

        Raises:
            JavaProgramError: it is not a number.
        """
        try:
            return float(answer)
        except ValueError:
            raise JavaProgramError(
                f"METEOR answered {answer[:100]!r} where a score belongs.{last_words(self._folder)}"
            ) from None

    def _next_answer(self) -> str:
        try:
            line = self._answers.get(timeout=max(0.0, self._deadline - time.monotonic()))
        except queue.Empty:
            raise JavaProgramError(
                f"METEOR did not answer within {self._timeout:g} s and was stopped.{last_words(self._folder)}"
            ) from None
        if line is None:
            raise JavaProgramError(f"METEOR {self._end()} before all was scored.{last_words(self._folder)}")
        return line.decode("utf-8", errors="replace").strip()

    def _end(self) -> str:
        try:
            return f"ended with code {self._process.wait(timeout=_SECONDS_TO_END)}"
        except subprocess.TimeoutExpired:
            return "fell silent"

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            for line in answers:
                self._answers.put(line)
        self._answers.put(None)

    def _write(self, questions: Sequence[str]) -> None:
        assert self._process.stdin is not None
        # The reader reports a program that has ended.
        with suppress(OSError, ValueError):
            for question in questions:
                self._process.stdin.write(question.encode("utf-8") + b"\n")
            self._process.stdin.flush()
