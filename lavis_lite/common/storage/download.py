"""One HTTP download into one file: resumed, retried, never taken for complete when it is not."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

from tqdm import tqdm

from lavis_lite.common.files import write_json
from lavis_lite.common.storage.http import (
    HINT,
    Answer,
    DownloadError,
    Retries,
    TransientError,
    Version,
    connect,
    without_password,
)

MAX_BYTES = 256 << 30


def download(
    url: str, partial: Path, *, timeout_seconds: float, retries: int, max_bytes: int = MAX_BYTES
) -> bool:
    """Read `url` completely into `partial`, continuing what an earlier attempt left there.

    `<partial>.json` says which version of which address that is. It is continued only if the server
    still has that version. A complete one is not asked for again until it is discarded.

    Args:
        url: an http(s) address.
        partial: the file to write.
        timeout_seconds: for which the server may stay silent.
        retries: further attempts after a failed one.
        max_bytes: the largest file to accept.

    Returns:
        Whether the content came in more than one piece.

    Raises:
        DownloadError: the server refuses or broke off too often, the file is too large, or the disk is full.
    """
    attempts = Retries(url, retries)
    while True:
        try:
            return _attempt(url, partial, timeout_seconds, attempts, max_bytes)
        except TransientError as error:
            attempts.wait_after(error)


def discard(partial: Path) -> None:
    """Remove what `download` wrote, as far as it is still there."""
    partial.unlink(missing_ok=True)
    _origin_path(partial).unlink(missing_ok=True)


def _attempt(url: str, partial: Path, timeout_seconds: float, attempts: Retries, max_bytes: int) -> bool:
    version = _known_version(url, partial)
    offset = partial.stat().st_size if version.validator and partial.exists() else 0
    if offset and offset == version.length:
        return True
    answer = connect(url, offset, version, timeout_seconds)
    with contextlib.closing(answer.response):
        _check_room(answer, partial, max_bytes)
        _write(answer, partial, attempts, max_bytes)
    return answer.start > 0


def _check_room(answer: Answer, partial: Path, max_bytes: int) -> None:
    """Refuse a file that is too large for the limit or for the disk, before any of it is written."""
    length = answer.version.length
    if length is None:
        return
    if length > max_bytes:
        raise _too_large(answer.url, f"{length} bytes", max_bytes)
    free = shutil.disk_usage(partial.parent).free
    if length - answer.start > free:
        raise _no_room(partial, f"{length - answer.start} bytes are to come and {free} are free")


def _write(answer: Answer, partial: Path, attempts: Retries, max_bytes: int) -> None:
    """Write the answer to `partial` from where it starts."""
    silent = sys.stderr is None or not sys.stderr.isatty()
    bar = tqdm(
        total=answer.version.length,
        initial=answer.start,
        unit="B",
        unit_scale=True,
        desc=partial.stem,
        disable=silent,
    )
    with bar:
        try:
            with partial.open("ab" if answer.start else "wb") as file:
                # After the old content is gone, or a kill here would leave it with the new version.
                _note_version(answer, partial)
                for chunk in answer.chunks():
                    if file.tell() + len(chunk) > max_bytes:
                        raise _too_large(answer.url, f"more than {file.tell()} bytes", max_bytes)
                    file.write(chunk)
                    bar.update(len(chunk))
                    attempts.count(len(chunk))
                file.flush()
                os.fsync(file.fileno())
        except DownloadError:
            raise
        except OSError as error:
            raise _no_room(partial, str(error)) from error


def _known_version(url: str, partial: Path) -> Version:
    """Return which version of `url` the partial file is the beginning of; an empty one if it is not known."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        noted = json.loads(_origin_path(partial).read_text(encoding="utf-8"))
        if noted["url"] == url:
            return Version(noted["validator"], noted["length"])
    return Version()


def _note_version(answer: Answer, partial: Path) -> None:
    version = answer.version
    noted = {"url": answer.url, "validator": version.validator, "length": version.length}
    write_json(noted, _origin_path(partial))


def _origin_path(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _too_large(url: str, size: str, max_bytes: int) -> DownloadError:
    return DownloadError(f"{without_password(url)}: has {size}, the limit is {max_bytes}. {HINT}")


def _no_room(partial: Path, reason: str) -> DownloadError:
    return DownloadError(
        f"{partial}: cannot be written ({reason}); free some space, or set LAVIS_LITE_CACHE to a folder "
        "with more. The next attempt continues with what is there."
    )
