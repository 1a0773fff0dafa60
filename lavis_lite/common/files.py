"""Files: written whole or not at all, opened only if regular, and locked by one process at a time."""

from __future__ import annotations

import contextlib
import errno
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

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
}


class FileError(ValueError):
    """A file that cannot be used; the message names it and the reason."""


class LockedError(FileError):
    """A folder or file in use by another process; the message names that process."""


@contextlib.contextmanager
def atomic_writer(path: str | Path, mode: str = "wb", encoding: str = "utf-8") -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` when the block ends without an error.

    After an error or a kill, `path` is unchanged. The folder is created.

    Args:
        path: the file to write or replace.
        mode: "wb", or "w" for text, whose line ends are written unchanged.
        encoding: of text. A lone surrogate becomes a backslash escape, which in JSON is the same text.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with (
            temporary.open(mode)
            if "b" in mode
            else temporary.open(mode, encoding=encoding, errors="backslashreplace", newline="")
        ) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            error.filename = str(path)  # errors of writing to an open file do not name it
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power failure, where the system can open folders."""
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
    """Open a regular file for reading, without waiting for a pipe or reading a device.

    Raises:
        FileError: a missing or unreadable file, or a folder, pipe, socket or device.
    """
    try:
        # Without O_NONBLOCK the call would wait for a writer if `path` is a named pipe.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise FileError(f"{path}: there is no such file.") from None
    except (OSError, ValueError) as error:
        kind = "file"
        with contextlib.suppress(OSError, ValueError):
            kind = kind_of(Path(path).stat().st_mode)
        if kind == "file":
            raise FileError(f"{path}: cannot be opened ({first_line(error)}).") from error
        # a socket cannot be opened, nor a folder on Windows
        raise FileError(f"{path}: is a {kind}, not a file.") from error
    kind = kind_of(os.fstat(descriptor).st_mode)
    if kind != "file":
        os.close(descriptor)
        raise FileError(f"{path}: is a {kind}, not a file.")
    return os.fdopen(descriptor, "rb")


def kind_of(mode: int) -> str:
    """Return "file", "folder", "named pipe", "socket" or "device" for a mode of `os.stat`."""
    return _KINDS.get(stat.S_IFMT(mode), "device")


def printable(text: object) -> str:
    r"""Return a path or name as one line that any stream can print.

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
    if 0xDC80 <= code <= 0xDCFF:  # how Python's file names represent a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def first_line(error: object, limit: int = 200) -> str:
    """Return the first line of an error's message, or the name of its type if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0][:limit] if lines else type(error).__name__


class OwnerLock:
    """A lock of one process that tells other processes who holds it.

    The system releases it when the process ends, even after a kill.

    Args:
        path: the lock file; its folder is created by `acquire`.
        what: what is locked, as errors name it ("the run folder output/a").
    """

    def __init__(self, path: str | Path, what: str) -> None:
        self.path = Path(path)
        self.what = what
        self._lock = FileLock(self.path, thread_local=False)
        self._holder_file = self.path.with_name(self.path.name + ".holder")

    def acquire(self, wait_seconds: float = 0) -> OwnerLock:
        """Acquire the lock and record this process as its holder.

        Args:
            wait_seconds: how long to wait for another holder; negative for no limit.

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
        """Release the lock if this process holds it."""
        if self._lock.is_locked:
            self._holder_file.unlink(missing_ok=True)
            self._lock.release()

    def holder(self) -> str:
        """Describe the process that holds the lock ("" if unknown)."""
        try:
            holder = json.loads(self._holder_file.read_text(encoding="utf-8"))
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
            return f"process {holder['pid']} on {holder['host']} ({holder['command']}) since {since}"
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def __enter__(self) -> OwnerLock:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()
