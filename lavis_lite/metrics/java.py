"""Find Java and run Java programs safely.

A program has a time limit and a fixed locale, works in a temporary folder, is stopped in any case with
all of its children, and its output counts only when its exit code is 0.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

INSTALL_HINT = "Install Java 8 or newer (OpenJDK) and put `java` on PATH, or set JAVA_HOME."

# Numbers with a decimal point and text in UTF-8, whatever the machine's locale.
_LOCALE_OPTIONS = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8")
_VERSION_TIMEOUT_SECONDS = 30.0
_LONGEST_QUOTE = 1000  # characters of a program's output in an error message


class JavaMissingError(RuntimeError):
    """No usable Java; the message says why and what to install."""


class JavaProgramError(RuntimeError):
    """A Java program failed, hung, or gave an answer that cannot be right."""


@dataclass(frozen=True)
class Java:
    """A Java runtime that works.

    Attributes:
        version: 8 for "1.8.0_292", 17 for "17.0.15".
    """

    path: Path
    version: int

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command that runs a program; paths in `arguments` must be absolute."""
        return [str(self.path), *_LOCALE_OPTIONS, *arguments]


def find_java() -> Java:
    """Return the Java of JAVA_HOME, or else the first on PATH.

    Raises:
        JavaMissingError: no Java, or one that does not print its version.
    """
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    path = path or shutil.which("java")
    if path is None:
        raise JavaMissingError(f"`java` is not on PATH. {INSTALL_HINT}")
    return Java(Path(path), _version(path))


@functools.cache
def _version(path: str) -> int:
    try:
        _, output = _run([path, "-version"], "java -version", _VERSION_TIMEOUT_SECONDS)
    except JavaProgramError as error:
        raise JavaMissingError(f"{path} does not work: {error} {INSTALL_HINT}") from error
    numbers = re.search(r'version "(\d+)(?:\.(\d+))?', output)
    if numbers is None:
        raise JavaMissingError(f"{path} does not print its version: {_shortened(output)} {INSTALL_HINT}")
    first, second = int(numbers[1]), int(numbers[2] or 0)
    return second if first == 1 else first


def package_file(*parts: str) -> Path:
    """Return the path of a file of the installed pycocoevalcap, which contains the Java programs.

    Raises:
        JavaMissingError: the file does not exist.
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


def run_java(java: Java, arguments: Sequence[str], *, program: str, timeout_seconds: float) -> str:
    """Run a Java program to its end and return what it wrote to standard output.

    Args:
        arguments: from the class path or ``-jar`` on; paths must be absolute.
        program: its name in error messages.
        timeout_seconds: after which it is stopped.

    Raises:
        JavaProgramError: it failed, ran past the limit or wrote something that is not UTF-8.
    """
    return _run(java.command(arguments), program, timeout_seconds)[0]


def _run(command: Sequence[str], program: str, timeout_seconds: float) -> tuple[str, str]:
    """Return what a command wrote to standard output and to standard error."""
    with tempfile.TemporaryDirectory(prefix="lavis_lite_java_") as name:
        folder = Path(name)
        # Files instead of pipes: nothing can block on them, and a grandchild cannot hold them open.
        with (folder / "stdout").open("wb") as output, started(command, folder, stdout=output) as process:
            try:
                process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                raise JavaProgramError(
                    f"{program} did not end within {timeout_seconds:g} s and was stopped.{last_words(folder)}"
                ) from None
            if process.returncode != 0:
                raise JavaProgramError(
                    f"{program} failed with code {process.returncode}.{last_words(folder)}"
                )
        try:
            return (folder / "stdout").read_text("utf-8"), _errors_of(folder)
        except UnicodeDecodeError as error:
            raise JavaProgramError(f"{program} wrote what is not UTF-8: {error}.") from error


@contextmanager
def started(
    command: Sequence[str], folder: Path, *, stdout: int | IO[bytes], stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """Start `command` in `folder`, with its standard error in the file "stderr" there; stop it on leaving."""
    with (folder / "stderr").open("wb") as errors:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=stdin,
                stdout=stdout,
                stderr=errors,
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
        with suppress(OSError):  # nobody reads what is left to write
            process.stdin.close()


def last_words(folder: Path) -> str:
    """Return the end of what a program wrote to standard error, as a sentence of an error message."""
    text = _errors_of(folder)
    return f" It said: {_shortened(text)}" if text else " It said nothing."


def _errors_of(folder: Path) -> str:
    return (folder / "stderr").read_text("utf-8", errors="replace").strip()


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_QUOTE else f"... {text[-_LONGEST_QUOTE:]}"
