"""Files: written whole or not at all, opened only if they are regular, owned by one process at a time."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import sys
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from filelock import FileLock, Timeout


class FileError(ValueError):
    """A file that cannot be used; the message names it and says why."""


class LockedError(FileError):
    """Another process is using this folder or file; the message names that process."""


@contextlib.contextmanager
def atomic_writer(path: str | Path, mode: str = "wb", encoding: str | None = None) -> Iterator[IO[Any]]:
    """Give a file that takes the place of `path` when the block ends without an error.

    Until then, and after an error or a kill, `path` is what it was before. The folder is created.

    Args:
        path: the file to write or replace.
        mode: "wb", or "w" for text with line ends as given.
        encoding: of text; UTF-8 where it is not given. A lone surrogate becomes a backslash escape,
            which in JSON is the same text.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = (
        {} if "b" in mode else {"encoding": encoding or "utf-8", "errors": "backslashreplace", "newline": ""}
    )
    temporary = temporary_path(path)
    try:
        with temporary.open(mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def temporary_path(path: Path) -> Path:
    """Return where this process writes the successor of `path`: ``.NAME.PID.tmp`` beside it."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut, where the system can open folders."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(content: Any, path: str | Path, indent: int | None = 1) -> None:
    """Write `content` as UTF-8 JSON through `atomic_writer`."""
    with atomic_writer(path, "w") as file:
        json.dump(content, file, ensure_ascii=False, indent=indent)
        file.write("\n")


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        FileError: missing, not a regular file, not UTF-8, or not JSON; the message says which.
    """
    with open_regular(path) as file:
        content = file.read()
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: is not valid JSON ({first_line(error)}).") from error


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading, without ever waiting for a pipe or reading a device.

    Raises:
        FileError: there is no such file, it may not be read, or it is a folder, pipe, socket or device.
    """
    try:
        # Without O_NONBLOCK the call would wait for a writer where `path` is a named pipe.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise FileError(f"{path}: there is no such file.") from None
    except (OSError, ValueError) as error:
        kind = _kind_at(path)
        if kind not in ("", "file"):  # a socket cannot be opened, nor a folder on Windows
            raise FileError(f"{path}: is a {kind}, not a file.") from error
        raise FileError(f"{path}: cannot be opened ({first_line(error)}).") from error
    kind = kind_of(os.fstat(descriptor).st_mode)
    if kind != "file":
        os.close(descriptor)
        raise FileError(f"{path}: is a {kind}, not a file.")
    return os.fdopen(descriptor, "rb")


def _kind_at(path: str | Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return kind_of(Path(path).stat().st_mode)
    return ""


def kind_of(mode: int) -> str:
    """Return "file", "folder", "named pipe", "socket" or "device" for the mode that ``stat`` gives."""
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "folder",
        stat.S_IFIFO: "named pipe",
        stat.S_IFSOCK: "socket",
    }
    return kinds.get(stat.S_IFMT(mode), "device")


def printable(text: object) -> str:
    r"""Return a path or name as one line that any stream can show.

    Control characters, line separators and bytes that are not UTF-8 become backslash escapes.

    >>> print(printable("caf\udce9.jpg"), printable("a\nb.jpg"))
    caf\xe9.jpg a\nb.jpg
    """
    return "".join(
        _escaped(char) if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char
        for char in str(text)
    )


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # how Python's file names hold a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def first_line(error: object, limit: int = 200) -> str:
    """Return the first line of an error's message, or the name of its type where it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else type(error).__name__


class OwnerLock:
    """A lock that one process holds and that tells everyone else who holds it.

    The system releases it when the process ends, also after a kill.

    Args:
        path: the lock file; its folder is created when the lock is taken.
        what: what is locked, as errors name it ("the run folder output/a").
    """

    def __init__(self, path: str | Path, what: str) -> None:
        self.path = Path(path)
        self.what = what
        self._lock = FileLock(self.path, thread_local=False)

    def acquire(self, wait_seconds: float = 0) -> OwnerLock:
        """Take the lock and write down this process as its holder.

        Args:
            wait_seconds: for how long to wait for another holder; a negative number waits without limit.

        Raises:
            LockedError: another process holds it; the message names it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=wait_seconds)
        except Timeout:
            raise LockedError(
                f"{self.what} is in use by {self.holder() or 'another process'}. "
                "Wait for it to end, stop it, or choose another folder."
            ) from None
        command = " ".join(sys.argv)[:200]
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": time.time()}
        self._holder_file.write_text(json.dumps(holder), encoding="utf-8", errors="backslashreplace")
        return self

    def release(self) -> None:
        """Let the lock go; does nothing where it is not held."""
        if self._lock.is_locked:
            self._holder_file.unlink(missing_ok=True)
            self._lock.release()

    def holder(self) -> str:
        """Describe the process that holds the lock ("" where it is not known)."""
        try:
            holder = json.loads(self._holder_file.read_text(encoding="utf-8"))
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
            return f"process {holder['pid']} on {holder['host']} ({holder['command']}) since {since}"
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    @property
    def _holder_file(self) -> Path:
        return self.path.with_name(self.path.name + ".holder")

    def __enter__(self) -> OwnerLock:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()
