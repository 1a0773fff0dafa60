"""Shards: their names and sample counts, and the samples, unused members and damages in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import FileError, first_line
from lavis_lite.datasets.web.index import counts_of
from lavis_lite.datasets.web.patterns import expand
from lavis_lite.datasets.web.samples import (
    IMAGE_MEMBERS,
    Grouper,
    RawSample,
    UnusedMember,
    UnusedMembers,
    has_image,
    why_not_used,
)
from lavis_lite.datasets.web.sources import REMOTE, ShardError, describe_beginning, is_pipe, open_source
from lavis_lite.datasets.web.tar import Damage, NotTarError, TarMember, TarReader

__all__ = [
    "IMAGE_MEMBERS",
    "Damage",
    "RawSample",
    "Shard",
    "ShardError",
    "UnusedMember",
    "UnusedMembers",
    "count_samples",
    "list_shards",
    "raw_samples",
    "read_shard",
]

MAX_DAMAGES = 20  # of one shard that are listed
# Errors that keep a shard from being opened, or read to its end.
SHARD_ERRORS = (OSError, FileError, MemoryError)


@dataclass(frozen=True)
class Shard:
    """A tar file, gzipped or not.

    Attributes:
        name: its path, address, or ``pipe:`` and a command.
        samples: how many samples with an image it holds; None if unknown.
        allow_pipe: whether its command may be run.
    """

    name: str
    samples: int | None = None
    allow_pipe: bool = False

    @property
    def is_local(self) -> bool:
        """True for a local file."""
        return not self.name.startswith(REMOTE) and not is_pipe(self.name)


def list_shards(patterns: Sequence[str], allow_pipe: bool = False) -> list[Shard]:
    """Return the shards that `patterns` name, in their order, with the counts of their indexes.

    Args:
        patterns: local paths with ``*`` and ``{000..127}``, folders, http(s) addresses with braces, or
            ``pipe:`` and a command that writes a tar to its output.
        allow_pipe: whether commands may be run: whoever writes the config runs them.

    Raises:
        ConfigError: a pattern that names nothing or something that may not be opened, an index that
            cannot be used, or one that names missing shards.
    """
    shards = [Shard(name, None, allow_pipe) for pattern in patterns for name in expand(pattern, allow_pipe)]
    by_folder: dict[Path, list[str]] = {}
    for path in (Path(shard.name) for shard in shards if shard.is_local):
        by_folder.setdefault(path.parent, []).append(path.name)
    counts: dict[str, int] = {}
    for folder, names in by_folder.items():
        counts |= {str(folder / name): count for name, count in counts_of(folder, names).items()}
    return [replace(shard, samples=counts.get(str(Path(shard.name)))) for shard in shards]


def count_samples(shard: Shard) -> int:
    """Return how many samples with an image a local shard holds; of a plain tar only headers are read.

    Raises:
        ConfigError: not on this machine, or not a tar file.
    """
    if not shard.is_local:
        raise ConfigError(
            f"shards: nobody knows how many samples {shard.name} holds. Put an index.json beside it "
            "(`lavis-lite shards make` writes one), or set resampled: true and epoch_size."
        )
    try:
        items = read_shard(shard, contents=False)
        return sum(isinstance(item, dict) and has_image(item) for item in items)
    except SHARD_ERRORS as error:
        raise ConfigError(f"shards: {error}") from error


def raw_samples(
    shard: Shard, on_error: Callable[[str], None], whole_or_error: bool = False
) -> Iterator[RawSample]:
    """Yield the samples of a shard: "__key__", "__url__", and the bytes of each member by its suffix.

    A sample may lack an image or a text.

    Args:
        on_error: called with each damage, and with a line for each reason why members are not used.
        whole_or_error: raise an error if a shard is not a tar, or cannot be reached (a server, a
            command, a disk), so that it can be tried again.

    Raises:
        OSError, FileError, MemoryError: with `whole_or_error`.
    """
    unused = UnusedMembers()
    try:
        for item in read_shard(shard):
            if isinstance(item, Damage):
                on_error(f"{shard.name}: {item.text}")
            elif not isinstance(item, UnusedMember):
                yield item
            elif item.is_loss:
                unused.add(item)
    except SHARD_ERRORS as error:
        if whole_or_error:
            raise
        on_error(error_text(shard, error))
    for line in unused.lines():
        on_error(f"{shard.name}: {line}")


def error_text(shard: Shard, error: BaseException) -> str:
    """Return one line that says why a shard could not be read."""
    text = "not enough memory" if isinstance(error, MemoryError) else first_line(error, 500)
    return text if text.startswith(shard.name) else f"{shard.name}: {text}"


def read_shard(shard: Shard, contents: bool = True) -> Iterator[RawSample | UnusedMember | Damage]:
    """Yield the samples, unused members and damages of a shard.

    Args:
        contents: read the contents of members; the samples are the same without.

    Raises:
        OSError, FileError: it cannot be opened, it cannot be read to its end, or it is not a tar.
    """
    grouper = Grouper(shard.name)
    damages = 0
    failure: OSError | None = None
    try:
        for item in _read_members(shard, contents):
            if isinstance(item, TarMember):
                yield from grouper.add(item)
                continue
            damages += 1
            if damages <= MAX_DAMAGES:
                yield item
    except OSError as error:
        failure = error
    yield from grouper.finish()
    if damages > MAX_DAMAGES:
        yield Damage(f"{damages - MAX_DAMAGES} further damages")
    if failure is not None:
        raise failure


def _read_members(shard: Shard, contents: bool) -> Iterator[TarMember | Damage]:
    with open_source(shard.name, shard.allow_pipe) as (source, gunzip):
        beginning = source.read(64)
        source.unread(beginning)
        try:
            yield from TarReader(source, lambda member: not why_not_used(member), contents)
        except NotTarError as error:
            reason = describe_beginning(beginning)
            if gunzip is not None:
                reason = f"is gzipped, and {gunzip.error or reason}"
            raise ShardError(f"{shard.name}: {reason}.") from error
        if gunzip is not None and gunzip.error:
            yield Damage(gunzip.error)


def require_images(
    items: Iterable[RawSample | UnusedMember | Damage],
) -> Iterator[RawSample | UnusedMember | Damage]:
    """Yield the items of `read_shard`, with the members of a sample without an image as unused."""
    for item in items:
        if not isinstance(item, dict) or has_image(item):
            yield item
            continue
        for suffix in item:
            if not suffix.startswith("__"):
                yield UnusedMember(f"{item['__key__']}.{suffix}", "no image of the same name")
