"""Which shards there are, and what is in them: names, counts, samples, losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import FileError, first_line
from lavis_lite.datasets.web.index import counts_of, read_entries
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
from lavis_lite.datasets.web.sources import (
    REMOTE,
    GunzipStream,
    ShardError,
    describe_beginning,
    is_pipe,
    open_source,
)
from lavis_lite.datasets.web.tar import NotTarError, TarDamage, TarMember, TarReader

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
    "read_index",
    "read_shard",
]

MAX_DAMAGES = 20  # of one shard that are named one by one
# What keeps a shard from being opened, or read to its end.
SHARD_ERRORS = (OSError, FileError, MemoryError)


@dataclass(frozen=True)
class Shard:
    """A tar file, gzipped or not.

    Attributes:
        name: its path, address, or ``pipe:`` and a command.
        samples: how many it holds that have an image; None where it is not known.
        allow_pipe: whether its command may be run.
    """

    name: str
    samples: int | None = None
    allow_pipe: bool = False

    @property
    def is_local(self) -> bool:
        """Return whether it is a file of this machine."""
        return not self.name.startswith(REMOTE) and not is_pipe(self.name)


@dataclass(frozen=True)
class Damage:
    """Something wrong with a shard, which may have cost samples; the text says what, and where."""

    text: str


def list_shards(patterns: Sequence[str], allow_pipe: bool = False) -> list[Shard]:
    """Return the shards that `patterns` name, in their order, with counts where an index has them.

    Args:
        patterns: local paths with ``*`` and ``{000..127}``, folders, http(s) addresses with braces, or
            ``pipe:`` and a command that writes a tar to its output.
        allow_pipe: whether commands may be run at all: whoever writes the config runs them.

    Raises:
        ConfigError: a pattern that names nothing or what may not be opened, an index that cannot be
            used, or one that names shards that are not there.
    """
    shards = [Shard(name, None, allow_pipe) for pattern in patterns for name in expand(pattern, allow_pipe)]
    by_folder: dict[Path, list[str]] = {}
    for path in (Path(shard.name) for shard in shards if shard.is_local):
        by_folder.setdefault(path.parent, []).append(path.name)
    counts: dict[str, int] = {}
    for folder, names in by_folder.items():
        counts |= {str(folder / name): count for name, count in counts_of(folder, names).items()}
    return [replace(shard, samples=counts.get(str(Path(shard.name)))) for shard in shards]


def read_index(folder: Path) -> dict[str, int]:
    """Return path -> samples of the shards that the index of `folder` names; nothing without an index."""
    return {str(folder / name): entry.samples for name, entry in read_entries(folder).items()}


def count_samples(shard: Shard) -> int:
    """Return how many samples with an image a local shard yields; of a plain tar only headers are read.

    Raises:
        ConfigError: it is not on this machine, or no tar file.
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

    A sample need not have an image, or a text.

    Args:
        on_error: told of each damage, and of the members that are not used, a line for each reason.
        whole_or_error: raise where a shard cannot be reached (a server, a command, a disk), which
            another time it may be, or where it is no tar at all.

    Raises:
        OSError, FileError, MemoryError: with `whole_or_error`.
    """
    unused = UnusedMembers()
    try:
        for item in read_shard(shard):
            if isinstance(item, Damage):
                on_error(f"{shard.name}: {item.text}")
            elif isinstance(item, UnusedMember):
                if item.is_loss:
                    unused.add(item)
            else:
                yield item
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
    """Yield all there is in a shard: each member is part of a sample, or unused; damages are named.

    Args:
        contents: whether to read what members hold; the samples are the same without.

    Raises:
        OSError, FileError: it cannot be opened, it cannot be read to its end, or it is no tar.
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
                yield Damage(item.text)
    except OSError as error:
        failure = error
    yield from grouper.finish()
    if damages > MAX_DAMAGES:
        yield Damage(f"{damages - MAX_DAMAGES} further damages")
    if failure is not None:
        raise failure


def _read_members(shard: Shard, contents: bool) -> Iterator[TarMember | TarDamage]:
    with open_source(shard.name, shard.allow_pipe) as (source, gunzip):
        beginning = source.read(64)
        source.unread(beginning)
        try:
            yield from TarReader(source, lambda member: not why_not_used(member), contents)
        except NotTarError as error:
            raise ShardError(f"{shard.name}: {_not_tar(beginning, gunzip)}.") from error
        if gunzip is not None and gunzip.error:
            yield TarDamage(gunzip.error)


def _not_tar(beginning: bytes, gunzip: GunzipStream | None) -> str:
    if gunzip is None:
        return describe_beginning(beginning)
    return f"is gzipped, and {gunzip.error or describe_beginning(beginning)}"
