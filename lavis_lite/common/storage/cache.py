"""Where files are kept, and how they get there: the cache folder and checked downloads.

A download is a file whose name appears only when it is complete. Beside it lies its record,
`<name>.sha256` (which `sha256sum -c` reads), and while it comes, `<name>.part`.
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
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from filelock import FileLock, Timeout
from iopath.common.file_io import PathManager

from lavis_lite.common.files import atomic_writer
from lavis_lite.common.storage.download import MAX_BYTES, discard, download
from lavis_lite.common.storage.http import HINT, DownloadError, without_password

logger = logging.getLogger(__name__)

_SUBFOLDER = "downloads"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://|(file):", re.IGNORECASE)


class NoCacheError(OSError):
    """There is no place for downloads."""


class AddressError(ValueError):
    """An address that is no valid http(s) or file address, nor a plain path."""


class ChecksumError(DownloadError):
    """A file that is not the expected one."""


def cache_root() -> Path:
    """Return the folder that downloads and relative `storage` paths lie in; it may not exist yet.

    It is `LAVIS_LITE_CACHE` if that is set, else `lavis_lite` in the user's cache folder.

    Raises:
        NoCacheError: neither is there.
    """
    if chosen := os.environ.get("LAVIS_LITE_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "lavis_lite" / "Cache"
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "lavis_lite"
    shared = Path(os.environ.get("XDG_CACHE_HOME", "")).expanduser()
    # The XDG specification tells to ignore a relative path.
    return (shared if shared.is_absolute() else _home() / ".cache") / "lavis_lite"


def _home() -> Path:
    try:
        return Path.home()
    except (RuntimeError, KeyError):  # no HOME, and a user without a name, as in a container
        raise NoCacheError(
            "there is no folder for downloads, because this user has no home folder; set LAVIS_LITE_CACHE to "
            "a folder that can be written."
        ) from None


def resolve(storage: str | Path, root: Path | None = None) -> Path:
    """Return where `storage` lies: `~` expanded, a relative path below `root` (or the cache folder).

    Raises:
        AddressError: `storage` is an address of another kind than file.
    """
    path = local_path(storage)
    if path.is_absolute():
        return path  # without asking for a cache folder, which there may not be
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
        raise AddressError(f"{path}: is not a place on this machine; give a plain path or file:///")
    return Path(url2pathname(parts.path))


def fetch(
    url_or_path: str | Path,
    *,
    subfolder: str = _SUBFOLDER,
    destination: Path | None = None,
    md5: str | None = None,
    sha256: str | None = None,
    timeout_seconds: float = 30,
    retries: int = 3,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Return the local path of a file, downloading it once if it is an http(s) address.

    What lies on this machine is returned as it is, checked if a checksum is given. A download is
    checked too, and its checksums and size are recorded beside it: a later
    call compares those, without reading the file. Only files with such a record are ever
    replaced. Processes that want the same file at once wait for the first of them.

    Args:
        url_or_path: a path, a file or http(s) address, or one that a handler of `path_manager` knows.
        subfolder: of the cache folder; the file lies in a folder of its own below it.
        destination: the file to download to, in place of a name in the cache folder.
        md5: what the file's MD5 must be, in hexadecimal digits.
        sha256: what its SHA-256 must be.
        timeout_seconds: for which the server may stay silent.
        retries: further attempts after a broken connection or a server's error; each continues where
            the one before was cut off, if the server can do that.
        max_bytes: the largest file to download.

    Raises:
        AddressError: an address of another kind, or with a fault.
        FileNotFoundError: a local path that is no file.
        ChecksumError: the file is not the expected one; a download of it is not kept.
        DownloadError: the address cannot be read.
    """
    expected = _expected(url_or_path, md5=md5, sha256=sha256)
    scheme = _scheme(url_or_path)
    if scheme in (None, "file"):
        return _checked_local_file(local_path(url_or_path), expected)
    url = str(url_or_path)
    if scheme not in ("http", "https"):
        return _checked_local_file(_from_handler(url), expected)
    _check_web_address(url)
    target = destination if destination is not None else _cache_path(url, subfolder)
    if not _fault(url, target, expected):  # before the lock, which a read-only cache could not hold
        return target
    with _locked(target):
        if fault := _fault(url, target, expected):
            level = logging.WARNING if target.exists() else logging.INFO
            logger.log(level, "%s %s: downloading %s", target, fault, url)
            read = functools.partial(
                download, timeout_seconds=timeout_seconds, retries=retries, max_bytes=max_bytes
            )
            _download_checked(url, target, expected, read)
    return target


@functools.cache
def path_manager() -> PathManager:
    """Return the iopath manager that `fetch` asks for addresses other than http(s) and file.

    It knows none at first. Register a handler with it, of iopath or of your own, and `s3://...` works
    wherever the library takes an address.
    """
    return PathManager()


def _from_handler(url: str) -> Path:
    """Return the local copy that a registered iopath handler makes of an address."""
    local = path_manager().get_local_path(url)
    if local == url:  # iopath takes what no handler knows for a plain path
        raise AddressError(
            f"{without_password(url)}: addresses may start with http://, https:// or file://, or be plain "
            "paths; download it yourself and set its local path, or register an iopath handler with "
            "lavis_lite.common.storage.cache.path_manager()"
        )
    return Path(local)


@dataclass
class _Record:
    """What is known of a finished download."""

    url: str
    size: int
    md5: str
    sha256: str

    @classmethod
    def of(cls, path: Path, url: str = "") -> _Record:
        """Read `path` through."""
        sums = {"md5": hashlib.md5(usedforsecurity=False), "sha256": hashlib.sha256()}
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                for checksum in sums.values():
                    checksum.update(chunk)
        return cls(url, path.stat().st_size, sums["md5"].hexdigest(), sums["sha256"].hexdigest())

    @classmethod
    def load(cls, path: Path) -> _Record | None:
        """Read the record that `save` wrote; None if there is none that can be read."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            comment, line = path.read_text(encoding="utf-8").splitlines()
            known = json.loads(comment.removeprefix("#"))
            return cls(known["url"], int(known["size"]), known["md5"], line.split()[0])
        return None

    def save(self, path: Path) -> None:
        """Write the record in the form of `sha256sum`; the rest stands in a comment."""
        comment = json.dumps({"size": self.size, "md5": self.md5, "url": self.url})
        with atomic_writer(path, "w") as file:
            file.write(f"# {comment}\n{self.sha256}  {path.name.removesuffix('.sha256')}\n")

    def differences(self, expected: dict[str, str]) -> str:
        """Say which expected checksums are not met ("" if all are)."""
        return "; ".join(
            f"its {kind} is {getattr(self, kind)}, expected {value}"
            for kind, value in expected.items()
            if getattr(self, kind) != value
        )


def _fault(url: str, target: Path, expected: dict[str, str]) -> str:
    """Say why `target` must be downloaded ("" if it can be used); without our record it is the user's."""
    if not target.exists():
        return "is not there yet"
    record = _Record.load(_record_path(target))
    if record is None:
        _checked_local_file(target, expected)
        return ""
    if (size := target.stat().st_size) != record.size:
        return f"has {size} bytes in place of {record.size}"
    if not expected and record.url != url:
        return f"came from {record.url}"
    return record.differences(expected)


def _download_checked(
    url: str, target: Path, expected: dict[str, str], read: Callable[[str, Path], bool]
) -> None:
    """Put a checked download in the place of `target`; `read` downloads an address to a file."""
    partial = target.with_name(target.name + ".part")
    resumed = read(url, partial)
    record = _Record.of(partial, url)
    if resumed and record.differences(expected):
        discard(partial)  # the beginning may have been of another version
        read(url, partial)
        record = _Record.of(partial, url)
    if differences := record.differences(expected):
        discard(partial)
        raise ChecksumError(
            f"{url}: {differences} ({record.size} bytes came). The file on the server is another one or "
            f"was changed on the way: correct the expected checksum if you trust the server. {HINT}"
        )
    # In this order, so that at no moment a file stands beside another's record or, unless a person
    # put it there, beside none.
    target.unlink(missing_ok=True)
    record.save(_record_path(target))
    partial.replace(target)
    discard(partial)


def _checked_local_file(path: Path, expected: dict[str, str]) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    if expected and (differences := _Record.of(path).differences(expected)):
        raise ChecksumError(f"{path}: {differences}. It is not the expected file; move or replace it.")
    return path


def _expected(url_or_path: str | Path, **checksums: str | None) -> dict[str, str]:
    """Return the checksums that are given, in lower case."""
    lengths = {"md5": 32, "sha256": 64}
    expected = {kind: value.strip().lower() for kind, value in checksums.items() if value is not None}
    for kind, value in expected.items():
        if not re.fullmatch(rf"[0-9a-f]{{{lengths[kind]}}}", value):
            raise ValueError(
                f"{url_or_path}: {kind} must be {lengths[kind]} hexadecimal digits, found {value!r}"
            )
    return expected


def _scheme(path: str | Path) -> str | None:
    match = _SCHEME.match(path) if isinstance(path, str) else None
    return (match[1] or match[2]).lower() if match else None


def _check_web_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.port == 0:
            raise ValueError("it names no server")
    except ValueError as error:
        raise AddressError(f"{without_password(url)}: is not a valid address ({error})") from error


def _cache_path(url: str, subfolder: str) -> Path:
    folder = hashlib.sha256(url.encode()).hexdigest()[:16]
    name = re.sub(r"[^A-Za-z0-9._-]", "_", unquote(urlsplit(url).path).rsplit("/", 1)[-1]).lstrip(".")
    return cache_root() / subfolder / folder / (name[-120:] or "download")


def _record_path(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the one lock for writing `target`."""
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
            f"{target.parent}: cannot be written ({error}); set LAVIS_LITE_CACHE to a folder that can"
        ) from error
    try:
        yield
    finally:
        lock.release()
