"""Where files are kept, and how they get there: the cache folder, checked downloads, iopath.

A download is a file whose name appears only when it is complete. Beside it lies its record,
`<name>.sha256` (which `sha256sum -c` reads), and while it comes, `<name>.part`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from filelock import FileLock, Timeout
from iopath.common.file_io import NativePathHandler, PathHandler, PathManager

from lavis_lite.common.download import discard, download
from lavis_lite.common.http_requests import REMEDY, DownloadError

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
) -> Path:
    """Return the local path of a file, downloading it once if it is an http(s) address.

    What lies on this machine is returned as it is, checked if a checksum is given. A download is
    checked if a checksum is given, and its checksums and size are recorded beside it: a later
    call compares those, without reading the file. Only files with such a record are ever
    replaced. Processes that want the same file at once wait for the first of them.

    Args:
        subfolder: of the cache folder; the file lies in a folder of its own below it.
        destination: the file to download to, in place of a name in the cache folder.
        timeout_seconds: for which the server may stay silent.
        retries: further attempts after a broken connection or a server's error; each goes on where
            the one before was cut off, if the server can do that.

    Raises:
        AddressError: an address of another kind, or with a fault.
        FileNotFoundError: a local path that is no file.
        ChecksumError: the file is not the expected one; a download of it is not kept.
        DownloadError: the address cannot be read.
    """
    expected = _expected(url_or_path, md5=md5, sha256=sha256)
    if _scheme(url_or_path) in (None, "file"):
        return _checked_local_file(local_path(url_or_path), expected)
    url = str(url_or_path)
    _check_web_address(url)
    target = destination if destination is not None else _cache_path(url, subfolder)
    if not _fault(url, target, expected):  # before the lock, which a read-only cache could not hold
        return target
    with _locked(target):
        if fault := _fault(url, target, expected):
            level = logging.WARNING if target.exists() else logging.INFO
            logger.log(level, "%s %s: downloading %s", target, fault, url)
            _download_checked(url, target, expected, timeout_seconds, retries)
    return target


def path_manager() -> PathManager:
    """Return an iopath manager for http(s) addresses (through `fetch`), file addresses and paths.

    Any other scheme raises `AddressError`.
    """
    manager = PathManager()
    manager.register_handler(_DownloadHandler())
    # iopath hands whatever no handler claims ("ftp://...") to this one.
    manager._native_path_handler = _LocalHandler()
    return manager


class _DownloadHandler(PathHandler):
    """http(s) addresses as read-only files, fetched when first touched."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["http://", "https://"]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        if force:
            target = _cache_path(path, _SUBFOLDER)
            with _locked(target):
                target.unlink(missing_ok=True)
        return str(fetch(path))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        if mode not in ("r", "rt", "rb"):
            raise ValueError(f"{path}: can only be read, not opened with mode {mode!r}")
        return Path(fetch(path)).open(mode, buffering, **kwargs)


class _LocalHandler(NativePathHandler):
    """The file system, by plain paths and file addresses only."""

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        return str(local_path(path))

    def _get_path_with_cwd(self, path: str) -> str:
        return super()._get_path_with_cwd(str(local_path(path)))

    def _mkdirs(self, path: str, **kwargs: Any) -> None:
        super()._mkdirs(str(local_path(path)), **kwargs)

    def _rm(self, path: str, **kwargs: Any) -> None:
        super()._rm(str(local_path(path)), **kwargs)


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
        unfinished = path.with_name(path.name + ".tmp")
        unfinished.write_text(
            f"# {comment}\n{self.sha256}  {path.name.removesuffix('.sha256')}\n", encoding="utf-8"
        )
        unfinished.replace(path)

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
    url: str, target: Path, expected: dict[str, str], timeout_seconds: float, retries: int
) -> None:
    partial = target.with_name(target.name + ".part")
    resumed = download(url, partial, timeout_seconds=timeout_seconds, retries=retries)
    record = _Record.of(partial, url)
    if resumed and record.differences(expected):
        discard(partial)  # the beginning may have been of another version
        download(url, partial, timeout_seconds=timeout_seconds, retries=retries)
        record = _Record.of(partial, url)
    if differences := record.differences(expected):
        discard(partial)
        raise ChecksumError(
            f"{url}: {differences} ({record.size} bytes came). The file on the server is another one or "
            f"was changed on the way: correct the expected checksum if you trust the server. {REMEDY}"
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
    if _scheme(url) not in ("http", "https"):
        raise AddressError(
            f"{url}: addresses may start with http://, https:// or file://, or be plain paths; "
            "download it yourself and set its local path"
        )
    try:
        parts = urlsplit(url)
        if not parts.hostname or parts.port == 0:
            raise ValueError("it names no server")
    except ValueError as error:
        raise AddressError(f"{url}: is not a valid address ({error})") from error


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
