"""Find Java and run its programs under guard.

A guarded program has a time limit and a locale of its own, works in a temporary folder, is ended in any
case with all that it started, and counts only when its exit code is 0.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

INSTALL_HINT = "Install Java 8 or newer (OpenJDK) and put `java` on PATH, or set JAVA_HOME."

# Numbers with a decimal point and text in UTF-8, whatever the machine's locale.
_LOCALE_OPTIONS = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8")
_VERSION_TIMEOUT_SECONDS = 30.0
_LONGEST_QUOTE = 1000  # characters of a program's own words in an error message


class JavaMissingError(RuntimeError):
    """There is no usable Java; the message says why and what to install."""


class JavaProgramError(RuntimeError):
    """A Java program failed, hung, or answered what cannot be right."""


@dataclass(frozen=True)
class Java:
    """A Java runtime that answered.

    Attributes:
        version: 8 for "1.8.0_292", 17 for "17.0.15".
    """

    path: Path
    version: int


def find_java() -> Java:
    """Return the Java of JAVA_HOME, or else the first on PATH.

    Raises:
        JavaMissingError: there is none, or it does not tell its version.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    found = found or shutil.which("java")
    if found is None:
        raise JavaMissingError(f"`java` is not on PATH. {INSTALL_HINT}")
    return Java(Path(found), _version(found))


@functools.cache
def _version(path: str) -> int:
    try:
        with tempfile.TemporaryDirectory(prefix="lavis_lite_java_") as folder:
            said = _run([path, "-version"], Path(folder), _VERSION_TIMEOUT_SECONDS, "java -version")
    except JavaProgramError as error:
        raise JavaMissingError(f"{path} does not work: {error} {INSTALL_HINT}") from error
    numbers = re.search(r'version "(\d+)(?:\.(\d+))?', said.stderr)
    if numbers is None:
        raise JavaMissingError(f"{path} does not tell its version: {_quote(said.stderr)} {INSTALL_HINT}")
    first, second = int(numbers[1]), int(numbers[2] or 0)
    return second if first == 1 else first


def package_file(*parts: str) -> Path:
    """Return the path of a file inside the installed pycocoevalcap, which brings the Java programs.

    Raises:
        JavaMissingError: the file is not there.
    """
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        path = Path(folder, *parts)
        if path.exists():
            return path
    raise JavaMissingError(
        f"{'/'.join(parts)} of the package pycocoevalcap is missing. Reinstall it: pip install pycocoevalcap"
    )


@dataclass(frozen=True)
class _Said:
    stdout: str
    stderr: str


def run_java(java: Java, arguments: Sequence[str], *, program: str, timeout_seconds: float) -> str:
    """Run a Java program to its end and return what it wrote to standard output.

    Args:
        arguments: from the class path or ``-jar`` on; paths must be absolute.
        program: its name in error messages.

    Raises:
        JavaProgramError: it failed, ran past the limit or wrote something that is not UTF-8.
    """
    with tempfile.TemporaryDirectory(prefix="lavis_lite_java_") as folder:
        command = [str(java.path), *_LOCALE_OPTIONS, *arguments]
        return _run(command, Path(folder), timeout_seconds, program).stdout


def _run(command: Sequence[str], folder: Path, timeout_seconds: float, program: str) -> _Said:
    # Files instead of pipes: nothing can block on them, and a grandchild cannot hold them open.
    stdout, stderr = folder / "stdout", folder / "stderr"
    with stdout.open("wb") as output, started(command, folder, stdout=output) as process:
        try:
            process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise JavaProgramError(
                f"{program} did not end within {timeout_seconds:g} s and was stopped.{last_words(folder)}"
            ) from None
        if process.returncode != 0:
            raise JavaProgramError(f"{program} failed with code {process.returncode}.{last_words(folder)}")
    try:
        return _Said(stdout.read_text("utf-8"), stderr.read_text("utf-8", errors="replace"))
    except UnicodeDecodeError as error:
        raise JavaProgramError(f"{program} wrote what is not UTF-8: {error}.") from error


@contextmanager
def started_java(java: Java, arguments: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a Java program to talk with over pipes; it is stopped on leaving.

    Args:
        folder: its working folder; what it complains about goes to a file there, see `last_words`.
    """
    command = [str(java.path), *_LOCALE_OPTIONS, *arguments]
    with started(command, folder, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        yield process


@contextmanager
def started(
    command: Sequence[str], folder: Path, *, stdout: int | IO[bytes], stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """Start `command` in `folder`, its complaints to the file "stderr" there; stop it on leaving."""
    with (folder / "stderr").open("wb") as complaints:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=stdin,
                stdout=stdout,
                stderr=complaints,
                start_new_session=os.name == "posix",  # so that its children can be stopped with it
            )
        except OSError as error:
            raise JavaProgramError(f"{command[0]} cannot be started: {error}.") from error
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if os.name == "posix":
        with suppress(ProcessLookupError, PermissionError):  # it has ended with all of its group
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
    process.wait()
    if process.stdin is not None:
        with suppress(OSError):  # what was still to be written has no reader any more
            process.stdin.close()


def last_words(folder: Path) -> str:
    """Return the end of what a program complained about, to stand in an error message."""
    text = (folder / "stderr").read_text("utf-8", errors="replace").strip()
    return f" It said: {_quote(text)}" if text else " It said nothing."


def _quote(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _LONGEST_QUOTE else f"... {text[-_LONGEST_QUOTE:]}"


class Deadline:
    """A point in time that several steps share."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, 0 when none are."""
        return max(0.0, self._end - time.monotonic())
