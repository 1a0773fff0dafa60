"""The cache folder, and files by path or address: downloaded once, and checked.

A download gets its name only when it is complete. Its record lies beside it as `<name>.sha256` (which
`sha256sum -c` reads); until then the content lies in `<name>.part`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from filelock import FileLock, Timeout
from iopath.common.file_io import PathManager

from lavis_lite.common.files import atomic_writer
from lavis_lite.common.storage.download import MAX_BYTES, discard, download
from lavis_lite.common.storage.http import HINT, DownloadError, without_password

logger = logging.getLogger(__name__)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|(file):", re.IGNORECASE)
_HEX_DIGITS = {"md5": 32, "sha256": 64}


class NoCacheError(OSError):
    """No folder for downloads: this user has no home folder."""


class AddressError(ValueError):
    """An address that is neither a valid http(s) or file address nor a plain path."""


class ChecksumError(DownloadError):
    """A file that does not have the expected checksum."""


def cache_root() -> Path:
    """Return the folder for downloads and for relative `storage` paths; it may not exist yet.

    This is `LAVIS_LITE_CACHE` if set, else `lavis_lite` in the user's cache folder.

    Raises:
        NoCacheError: neither exists.
    """
    if folder := os.environ.get("LAVIS_LITE_CACHE"):
        return Path(folder).expanduser().absolute()
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "lavis_lite" / "Cache"
    shared = Path(os.environ.get("XDG_CACHE_HOME", "")).expanduser()
    if sys.platform != "darwin" and shared.is_absolute():  # the XDG specification ignores relative paths
        return shared / "lavis_lite"
    try:
        return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "lavis_lite"
    except (RuntimeError, KeyError):  # no HOME, and a user without a name, as in a container
        raise NoCacheError(
            "there is no folder for downloads, because this user has no home folder; set LAVIS_LITE_CACHE to "
            "a writable folder."
        ) from None


def resolve(storage: str | Path, root: Path | None = None) -> Path:
    """Return `storage` as a path: `~` expanded, a relative path below `root` (or the cache folder).

    Raises:
        AddressError: `storage` is an address of another kind than file.
    """
    path = local_path(storage)
    if path.is_absolute():
        return path  # before `cache_root`, which may not exist
    return (root.expanduser() if root is not None else cache_root()) / path


def local_path(path: str | Path) -> Path:
    """Return a plain path or a file address as a path with `~` expanded.

    Raises:
        AddressError: an address of another kind, or of a file on another machine.
    """
    scheme = _scheme(path)
    if scheme is None:
        return Path(path).expanduser()
    parts = urlsplit(str(path))
    if scheme != "file" or parts.netloc not in ("", "localhost"):
        raise AddressError(f"{path}: is not a place on this machine; use a plain path or file:///")
    return Path(url2pathname(parts.path))


@functools.cache
def path_manager() -> PathManager:
    """Return the iopath manager that `fetch` uses for addresses other than http(s) and file.

    Register a handler with it, and addresses such as `s3://...` work wherever the library accepts one.
    """
    return PathManager()


def fetch(
    url_or_path: str | Path,
    *,
    destination: Path | None = None,
    md5: str | None = None,
    sha256: str | None = None,
    timeout_seconds: float = 30,
    retries: int = 3,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Return the local path of a file; download it first if it is an http(s) address that is not cached.

    Local files are returned as they are, checked if a checksum is set. The checksums and the size of a
    download are recorded beside it, so that later calls need not read the file. Only files with such a
    record are ever replaced. If several processes request a file at once, one downloads and the others wait.

    Args:
        url_or_path: a path, a file or http(s) address, or one that a handler of `path_manager` supports.
        destination: where to download to, instead of a folder of the cache.
        md5: expected MD5, in hexadecimal digits.
        sha256: expected SHA-256, in hexadecimal digits.
        timeout_seconds: how long the server may stay silent.
        retries: further attempts after a broken connection or a server error; each resumes where the previous
            one stopped, if the server supports it.
        max_bytes: the largest file to download.

    Raises:
        AddressError: an unsupported or invalid address.
        FileNotFoundError: no file at a local path.
        ChecksumError: the file does not have the expected checksum; a download of it is deleted.
        DownloadError: the address cannot be read.
    """
    expected = _expected_checksums(url_or_path, {"md5": md5, "sha256": sha256})
    scheme = _scheme(url_or_path)
    if scheme in (None, "file"):
        return _check_local_file(local_path(url_or_path), expected)
    url = str(url_or_path)
    if scheme not in ("http", "https"):
        return _check_local_file(_path_from_handler(url), expected)
    _check_web_address(url)
    target = destination if destination is not None else _cache_path(url)
    if not _reason_to_download(url, target, expected):  # before locking, which a read-only cache cannot do
        return target
    read = functools.partial(download, timeout_seconds=timeout_seconds, retries=retries, max_bytes=max_bytes)
    with _locked(target):
        if reason := _reason_to_download(url, target, expected):
            level = logging.WARNING if target.exists() else logging.INFO
            logger.log(level, "%s %s: downloading %s", target, reason, url)
            _download_checked(url, target, expected, read)
    return target


def _checksums(path: Path) -> dict[str, str]:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            md5.update(chunk)
            sha256.update(chunk)
    return {"md5": md5.hexdigest(), "sha256": sha256.hexdigest()}


def _write_record(target: Path, record: dict[str, Any]) -> None:
    """Write the record in the format of `sha256sum`, with the other values in a comment."""
    comment = json.dumps({key: record[key] for key in ("size", "md5", "url")})
    with atomic_writer(_record_path(target), "w") as file:
        file.write(f"# {comment}\n{record['sha256']}  {target.name}\n")


def _read_record(target: Path) -> dict[str, Any] | None:
    """Return what `_write_record` wrote, or None if there is no record, or a damaged one."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
        comment, line = _record_path(target).read_text(encoding="utf-8").splitlines()
        record = json.loads(comment.removeprefix("#"))
        return {
            "size": int(record["size"]),
            "md5": record["md5"],
            "url": record["url"],
            "sha256": line.split()[0],
        }
    return None


def _differences(record: dict[str, Any], expected: dict[str, str]) -> str:
    """Describe the checksums that differ from the expected ones ("" if none does)."""
    return "; ".join(
        f"its {kind} is {record[kind]}, expected {value}"
        for kind, value in expected.items()
        if record[kind] != value
    )


def _reason_to_download(url: str, target: Path, expected: dict[str, str]) -> str:
    """Return why `target` must be downloaded ("" if it can be used)."""
    if not target.exists():
        return "is not there yet"
    record = _read_record(target)
    if record is None:  # a file of the user's
        _check_local_file(target, expected)
        return ""
    if (size := target.stat().st_size) != record["size"]:
        return f"has {size} bytes in place of {record['size']}"
    if not expected and record["url"] != url:
        return f"came from {record['url']}"
    return _differences(record, expected)


def _download_checked(
    url: str, target: Path, expected: dict[str, str], read: Callable[[str, Path], bool]
) -> None:
    """Replace `target` by a checked download; `read` downloads an address to a file."""
    partial = target.with_name(target.name + ".part")
    resumed = read(url, partial)
    checksums = _checksums(partial)
    if resumed and _differences(checksums, expected):
        discard(partial)  # the beginning may belong to another version
        read(url, partial)
        checksums = _checksums(partial)
    size = partial.stat().st_size
    if differences := _differences(checksums, expected):
        discard(partial)
        raise ChecksumError(
            f"{without_password(url)}: {differences} ({size} bytes came). The file on the server is another "
            f"one or was changed on the way: correct the expected checksum if you trust the server. {HINT}"
        )
    # This order never leaves a file beside the record of another one, nor a download without a record.
    target.unlink(missing_ok=True)
    _write_record(target, {**checksums, "size": size, "url": url})
    partial.replace(target)
    discard(partial)


def _check_local_file(path: Path, expected: dict[str, str]) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    if expected and (differences := _differences(_checksums(path), expected)):
        raise ChecksumError(f"{path}: {differences}. It is not the expected file; move or replace it.")
    return path


def _expected_checksums(url_or_path: str | Path, checksums: dict[str, str | None]) -> dict[str, str]:
    """Return the checksums that are not None, in lower case."""
    expected = {kind: value.strip().lower() for kind, value in checksums.items() if value is not None}
    for kind, value in expected.items():
        if not re.fullmatch(rf"[0-9a-f]{{{_HEX_DIGITS[kind]}}}", value):
            raise ValueError(
                f"{url_or_path}: {kind} must be {_HEX_DIGITS[kind]} hexadecimal digits, found {value!r}"
            )
    return expected


def _scheme(path: str | Path) -> str | None:
    match = _SCHEME.match(path) if isinstance(path, str) else None
    return (match[1] or match[2]).lower() if match else None


def _path_from_handler(url: str) -> Path:
    """Return the local copy that a registered iopath handler makes of an address."""
    local = path_manager().get_local_path(url)
    if local == url:  # iopath treats an address without a handler as a plain path
        raise AddressError(
            f"{without_password(url)}: addresses may start with http://, https:// or file://, or be plain "
            "paths; download it yourself and set its local path, or register an iopath handler with "
            "lavis_lite.common.storage.cache.path_manager()"
        )
    return Path(local)


def _check_web_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.port == 0:
            raise ValueError("it names no server")
    except ValueError as error:
        raise AddressError(f"{without_password(url)}: is not a valid address ({error})") from error


def _cache_path(url: str) -> Path:
    folder = hashlib.sha256(url.encode()).hexdigest()[:16]
    name = re.sub(r"[^A-Za-z0-9._-]", "_", unquote(urlsplit(url).path).rsplit("/", 1)[-1]).lstrip(".")
    return cache_root() / "downloads" / folder / (name[-120:] or "download")


def _record_path(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock for writing `target`."""
    lock = FileLock(target.with_name(target.name + ".lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("Waiting for another process that downloads %s", target)
            lock.acquire()
    except OSError as error:
        raise DownloadError(
            f"{target.parent}: cannot be written ({error}); set LAVIS_LITE_CACHE to a writable folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
