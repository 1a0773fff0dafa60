"""Which shards there are, and what is in them: names, counts, raw samples."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from webdataset.shardlists import expand_urls
from webdataset.tariterators import base_plus_ext, group_by_keys, tar_file_iterator

from lavis_lite.common.images import IMAGE_SUFFIXES
from lavis_lite.common.schema import ConfigError
from lavis_lite.common.web import RemoteFile

IMAGE_MEMBERS = tuple(suffix.lstrip(".") for suffix in IMAGE_SUFFIXES)
TEXT_MEMBERS = ("txt", "json")
INDEX_FILE = "index.json"
REMOTE = ("http://", "https://")
PIPE = "pipe:"
BUFFER_BYTES = 1 << 20

RawSample = dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """A tar file: its path or address, and how many samples it holds, None where nobody knows."""

    name: str
    samples: int | None = None

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine."""
        return not self.name.startswith((*REMOTE, PIPE))


def list_shards(patterns: Sequence[str], allow_pipe: bool = False) -> list[Shard]:
    """Return the shards that `patterns` name, in their order, with counts where an index has them.

    Args:
        patterns: local paths with ``*`` and ``{000..127}``, http(s) addresses with braces, or
            ``pipe:`` and a command that writes a tar to its output.
        allow_pipe: whether commands may be run at all: whoever writes the config runs them.

    Raises:
        ConfigError: a pattern that names nothing, or a command where none is allowed.
    """
    names: list[str] = []
    for pattern in patterns:
        names += _expand(pattern, allow_pipe)
    counts: dict[str, int] = {}
    for folder in {Path(name).parent for name in names if not name.startswith((*REMOTE, PIPE))}:
        counts |= read_index(folder)
    return [Shard(name, counts.get(name)) for name in names]


def _expand(pattern: str, allow_pipe: bool) -> list[str]:
    if pattern.startswith(PIPE) and not allow_pipe:
        raise ConfigError(
            f"shards: {pattern!r} runs a command. Set allow_pipe: true if you trust whoever wrote it."
        )
    expanded = expand_urls(pattern) if not pattern.startswith(PIPE) else [pattern]
    names: list[str] = []
    for name in expanded:
        if name.startswith((*REMOTE, PIPE)):
            names.append(name)
            continue
        path = Path(name).expanduser()
        found = sorted(path.parent.glob(path.name)) if any(c in path.name for c in "*?[") else [path]
        if path.is_dir():
            found = sorted(path.glob("*.tar"))
        missing = [file for file in found if not file.is_file()]
        if missing or not found:
            raise ConfigError(f"shards: {pattern!r} names no file: {missing[0] if missing else path}.")
        names += [str(file) for file in found]
    return names


def read_index(folder: Path) -> dict[str, int]:
    """Return path -> samples of the shards that the index of `folder` names; nothing without an index."""
    file = folder / INDEX_FILE
    if not file.is_file():
        return {}
    try:
        shards = json.loads(file.read_text(encoding="utf-8"))["shards"]
        return {str(folder / shard["name"]): int(shard["samples"]) for shard in shards}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file}: is no index of shards ({type(error).__name__}: {error}); "
            "make it anew with `lavis-lite shards info --write`."
        ) from error


def count_samples(shard: Shard) -> int:
    """Return how many samples a local shard yields, by its headers alone, which is fast.

    Raises:
        ConfigError: it is not on this machine, or no tar file.
    """
    if not shard.is_local:
        raise ConfigError(
            f"shards: nobody knows how many samples {shard.name} holds. Put an index.json beside it "
            "(`lavis-lite shards make` writes one), or set resampled: true and epoch_size."
        )
    size = Path(shard.name).stat().st_size
    count, last = 0, None
    try:
        with tarfile.open(shard.name) as tar:
            for member in tar:
                key = base_plus_ext(member.name)[0]
                if not member.isreg() or key is None or not is_known(member.name):
                    continue
                if tar.fileobj.name == shard.name and member.offset_data + member.size > size:
                    break  # it is cut off here
                count += key != last
                last = key
    except tarfile.TarError as error:
        if count == 0:
            raise ConfigError(f"shards: {shard.name} is no tar file ({error}).") from error
    return count


def is_known(name: str) -> bool:
    """Whether a member of a tar is an image or a text; nothing else is ever decoded."""
    suffix = (base_plus_ext(name)[1] or "").lower()
    return suffix in IMAGE_MEMBERS or suffix in TEXT_MEMBERS


def raw_samples(
    shard: Shard, on_error: Callable[[str], None], whole_or_error: bool = False
) -> Iterator[RawSample]:
    """Yield the samples of a shard: "__key__", "__url__", and the bytes of each member by its suffix.

    Args:
        on_error: told why the rest of a shard is lost, if it is damaged, breaks off, or cannot be reached.
        whole_or_error: raise `OSError` where a shard cannot be reached (a server, a command, a disk), which
            another time it may be.
    """

    def note(error: Exception) -> bool:
        on_error(f"{shard.name}: {type(error).__name__}: {error}")
        return True  # go on with the next sample

    def files() -> Iterator[dict[str, Any]]:
        try:
            yield from _files(shard, on_error)
        except OSError as error:
            if whole_or_error:
                raise
            note(error)

    yield from group_by_keys(files(), handler=note)


def _files(shard: Shard, on_error: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield the members of a shard up to where it breaks off; a sample cut in two keeps what is whole."""
    with open_shard(shard) as stream:
        try:
            for file in tar_file_iterator(stream, select_files=is_known):
                yield {**file, "__url__": shard.name}
        except (tarfile.TarError, EOFError, ValueError) as error:
            on_error(f"{shard.name}: {type(error).__name__}: {error}")


@contextmanager
def open_shard(shard: Shard) -> Iterator[BinaryIO]:
    """Open a shard for reading from its beginning to its end.

    Raises:
        OSError: it cannot be reached, or its command fails.
    """
    if shard.name.startswith(PIPE):
        with _output_of(shard.name.removeprefix(PIPE)) as stream:
            yield stream
    elif shard.is_local:
        with Path(shard.name).open("rb") as file:
            yield file
    else:
        with io.BufferedReader(RemoteFile(shard.name), BUFFER_BYTES) as stream:
            yield stream


@contextmanager
def _output_of(command: str) -> Iterator[BinaryIO]:
    process = subprocess.Popen(command, shell=True, stdout=subprocess.PIPE)
    try:
        yield io.BufferedReader(process.stdout)
        while process.stdout.read(BUFFER_BYTES):
            pass  # behind the end of the archive; a command that cannot write would call that a failure
    finally:
        process.stdout.close()
        code = process.wait()
    if code:
        raise OSError(f"the command ended with code {code}")
