"""Downloading one address into one file: an interrupted download is resumed, and never taken for complete."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from lavis_lite.common.files import write_json
from lavis_lite.common.storage.http import Answer, DownloadError, Version, download_error, read_chunks

MAX_BYTES = 256 << 30


def download(
    url: str, partial: Path, *, timeout_seconds: float, retries: int, max_bytes: int = MAX_BYTES
) -> bool:
    """Read `url` completely into `partial`, resuming what an earlier call left there.

    `<partial>.json` records the address and version of the content. A download is resumed only if the server
    still has that version. A complete one is not requested again until it is discarded.

    Args:
        url: an http(s) address.
        partial: the file to write.
        timeout_seconds: how long the server may stay silent.
        retries: further attempts after a failed one.
        max_bytes: the largest file to accept.

    Returns:
        Whether the content came in more than one piece.

    Raises:
        DownloadError: the server refuses or broke off too often, the file is too large, or the disk is full.
    """
    version = _recorded_version(url, partial)
    offset = partial.stat().st_size if version.validator and partial.exists() else 0
    if offset and offset == version.length:
        return True
    chunks = read_chunks(
        url, offset=offset, version=version, timeout_seconds=timeout_seconds, retries=retries
    )
    bar = tqdm(
        unit="B", unit_scale=True, desc=partial.stem, disable=sys.stderr is None or not sys.stderr.isatty()
    )
    try:
        with contextlib.closing(chunks), contextlib.ExitStack() as stack, bar:
            for answer, chunk in chunks:
                if not chunk:
                    _check_size(answer, partial, max_bytes)
                    stack.close()  # the file of the previous response
                    file = stack.enter_context(partial.open("ab" if answer.start else "wb"))
                    # After the old content is gone, or a kill here would leave it with the new version.
                    write_json({"url": url, **asdict(answer.version)}, _version_path(partial))
                    bar.reset(answer.version.length)
                    bar.update(answer.start)
                elif file.tell() + len(chunk) > max_bytes:
                    raise download_error(url, f"has more than {file.tell()} bytes, the limit is {max_bytes}")
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    except DownloadError:
        raise
    except OSError as error:
        raise _cannot_write(partial, str(error)) from error
    return answer.start > 0


def discard(partial: Path) -> None:
    """Remove the files that `download` wrote."""
    partial.unlink(missing_ok=True)
    _version_path(partial).unlink(missing_ok=True)


def _check_size(answer: Answer, partial: Path, max_bytes: int) -> None:
    """Refuse a file that is too large for the limit or for the disk, before any of it is written."""
    length = answer.version.length
    if length is None:
        return
    if length > max_bytes:
        raise download_error(answer.url, f"has {length} bytes, the limit is {max_bytes}")
    missing, free = length - answer.start, shutil.disk_usage(partial.parent).free
    if missing > free:
        raise _cannot_write(partial, f"{missing} bytes are to come and {free} are free")


def _recorded_version(url: str, partial: Path) -> Version:
    """Return which version of `url` the partial file is the beginning of."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        record = json.loads(_version_path(partial).read_text(encoding="utf-8"))
        if record["url"] == url:
            return Version(record["validator"], record["length"])
    return Version()


def _version_path(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _cannot_write(partial: Path, reason: str) -> DownloadError:
    return DownloadError(
        f"{partial}: cannot be written ({reason}); free some space, or set LAVIS_LITE_CACHE to a folder "
        "on a larger disk. The next attempt continues where this one stopped."
    )
