"""Errors on the command line: one line each that says what is wrong, where, and what to do."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import traceback
from collections.abc import Iterator
from typing import TextIO

from lavis_lite.common.files import first_line

CLOSED_PIPE = 128 + 13  # what a shell reports for a program whose reader is gone (SIGPIPE)

# errno -> what it means for a path, and what to do
PATH_ERRORS = {
    errno.ENOENT: "there is no such file or folder.",
    errno.ENOTDIR: "a part of this path is a file where a folder is needed; choose another place.",
    errno.EISDIR: "is a folder where a file is needed; name a file in it.",
    errno.EEXIST: "is there already, and is not a folder; choose another place or move it away.",
    errno.ENOTEMPTY: "is a folder that is not empty; choose another place or empty it.",
    errno.EACCES: "may not be used (permission denied); change its permissions or choose another place.",
    errno.EPERM: "may not be used (operation not permitted); change its permissions or choose another place.",
    errno.EROFS: "lies on a read-only file system; choose another place.",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one.",
    errno.ELOOP: "is a link that leads back to itself; remove or correct it.",
    errno.EBUSY: "is in use by the system; end what uses it and try again.",
    errno.ETXTBSY: "is a program that is running; end it and try again.",
    errno.EFBIG: "would become larger than this file system or your limit (ulimit -f) allows.",
    errno.EIO: "the disk or the network drive failed (input/output error); check it and try again.",
    errno.ESTALE: "the network drive has lost this file; mount it again and try again.",
    errno.EINVAL: "this file system does not take such a name or operation; choose another place.",
}
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# Where no path is named; what is wrong, and what to do.
OTHER_ERRORS = {
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n 4096) or lower --num-workers.",
    errno.ENFILE: "too many files are open on this machine; end other programs or lower --num-workers.",
    errno.ENOMEM: "the memory is full; use a smaller batch size or fewer workers.",
    errno.EAGAIN: "no more processes or memory are available; use fewer workers, or raise ulimit -u.",
    errno.EADDRINUSE: "the network port is in use by another process; choose another port.",
    errno.EADDRNOTAVAIL: "this machine does not have that network address; correct it.",
    errno.ECONNREFUSED: "nothing answers at that network address; check host and port.",
    errno.ENETUNREACH: "the network cannot be reached.",
    errno.EHOSTUNREACH: "that host cannot be reached over the network.",
}


def report_error(error: Exception, debug: bool, of_a_run: bool) -> int:
    """Print one line about `error`, or the traceback where it is a bug of ours; return the exit code.

    Args:
        error: the error that ended the command.
        debug: print the traceback in any case.
        of_a_run: whether the command may run in several processes, of which one is to report.
    """
    line = explain(error)
    if isinstance(error, OSError) and _output_is_lost():
        if isinstance(error, BrokenPipeError):
            return CLOSED_PIPE
        print(line or f"standard output: {error}", file=sys.stderr)
        return 1
    if line is None:
        traceback.print_exception(error)
        print(
            "This error was not expected, so it is probably a bug in lavis-lite: please report it with the "
            "lines above.",
            file=sys.stderr,
        )
        return 1
    rank = _rank_of_launch() if of_a_run else None
    if rank is not None and _first_rank_here_reports(error):
        return 1
    if debug:
        traceback.print_exception(error)
    print(line if rank is None else f"[rank {rank}] {line}", file=sys.stderr)
    return 1


def _output_is_lost() -> bool:
    """Return True where standard output or error cannot be written; discard what they still buffer.

    Otherwise Python would try to write it again at exit, and print an error.
    """
    lost = False
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
            gone = _reader_is_gone(stream)
        except OSError:
            gone = True
        if gone:
            lost = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return lost


def _reader_is_gone(stream: TextIO) -> bool:
    """Return True where `stream` is a pipe without a reader."""
    if not hasattr(select, "poll"):
        return False
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:  # not a file of the system
        return False
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are always reported
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _rank_of_launch() -> str | None:
    """Return the rank that torchrun gave this process; RANK alone may have been set by anything."""
    names = ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "MASTER_ADDR", "RANK")
    launched = all(name in os.environ for name in names) and os.environ["WORLD_SIZE"] != "1"
    return os.environ["RANK"] if launched else None


def _first_rank_here_reports(error: Exception) -> bool:
    """Return True where another rank on this machine has the same error, and reports it."""
    from lavis_lite.common.config.schema import ConfigError
    from lavis_lite.common.registry import UnknownNameError
    from lavis_lite.runners.bad_data import TrainingError

    if os.environ.get("LOCAL_RANK", "0") == "0":
        return False
    # All ranks read the same config and files.
    is_shared = isinstance(error, TrainingError) and error.on_all_ranks
    return is_shared or isinstance(error, ConfigError | UnknownNameError)


def explain(error: BaseException) -> str | None:
    """Return one line about `error`, or None where only a traceback helps.

    Our own errors have a message that says everything. Of the others, those have a line that come from
    the machine and not from a bug: files, disk, memory, network ports.
    """
    for cause in _chain(error):  # a full disk hides behind the error of the code that was writing
        if isinstance(cause, OSError) and cause.errno in FULL_DISK:
            return _full_disk(cause)
    if _is_ours(error):
        return f"{type(error).__name__}: {_one_line(error)}"
    if isinstance(error, OSError):
        return _explain_os_error(error)
    if isinstance(error, MemoryError):
        return "MemoryError: the memory is full; use a smaller batch size or fewer workers."
    return _explain_torch(error) if isinstance(error, RuntimeError) else None


def _is_ours(error: BaseException) -> bool:
    """Return whether the error is of this library, or a plug-in derived it from one."""
    bases = type(error).__mro__
    return any(base.__module__.startswith("lavis_lite.") for base in bases) and bases[0].__name__[0] != "_"


def _one_line(error: BaseException) -> str:
    """Return the message; of an OSError with a number, what the number means."""
    if isinstance(error, OSError) and error.errno is not None and (text := _explain_os_error(error)):
        return text.split(": ", 1)[1]
    return str(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _full_disk(error: OSError) -> str:
    reason = "the disk quota is used up" if error.errno == errno.EDQUOT else "the disk is full"
    path = f"{_path_of(error)}: " if error.filename else ""
    return f"{type(error).__name__}: {path}{reason}; free some space and run the same command again."


def _explain_os_error(error: OSError) -> str | None:
    name = type(error).__name__
    if error.errno in PATH_ERRORS and error.filename is not None:
        return f"{name}: {_path_of(error)}: {PATH_ERRORS[error.errno]}"
    if error.errno in OTHER_ERRORS:
        return f"{name}: {OTHER_ERRORS[error.errno]}"
    # raised by our code with a message, such as "run_7: there is no such run folder"
    if error.errno is None and isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return f"{name}: {error}"
    return None


def _path_of(error: OSError) -> str:
    name = error.filename2 or error.filename
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)


def _explain_torch(error: RuntimeError) -> str | None:
    """Return the line for an error of torch that comes from the machine: its memory and network ports."""
    name, text = type(error).__name__, str(error)
    if name == "OutOfMemoryError" or "not enough memory" in text or "allocate memory" in text:
        return f"{name}: the memory of the device is full; use a smaller batch size ({first_line(error)})."
    if "EADDRINUSE" in text:
        port = os.environ.get("MASTER_PORT", "")
        return (
            f"{name}: the network port {port} is in use by another process; set MASTER_PORT to another one, "
            "or let torchrun choose it with --standalone."
        )
    if "Could not determine home directory" in text:
        return (
            "RuntimeError: this user has no home folder, so ~ has no meaning; name folders in full, and set "
            "LAVIS_LITE_CACHE to a folder for downloads."
        )
    return None
