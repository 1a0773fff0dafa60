"""Expansion of shard patterns to names, each checked as it will be opened."""

from __future__ import annotations

import glob
import itertools
import logging
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.files import first_line, kind_of
from lavis_lite.common.registry import nearest
from lavis_lite.datasets.web.index import check_index
from lavis_lite.datasets.web.sources import PIPE, REMOTE, is_pipe

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
MAX_NAMES = 1_000_000  # from one pattern
_OTHER_ARCHIVES = (".bz2", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".lz4", ".zip", ".7z", ".rar", ".gz")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
# Two colons separate patterns, except within the brackets of an IPv6 address.
_SEPARATOR = re.compile(r"::(?![^][/]*\])")
_RANGE = re.compile(r"(-?\d{1,18}|[A-Za-z])\.\.(-?\d{1,18}|[A-Za-z])(?:\.\.(-?\d{1,9}))?")

logger = logging.getLogger(__name__)


def expand(pattern: str, allow_pipe: bool) -> list[str]:
    """Return the shards that a pattern names: paths of existing files, addresses, commands.

    A path in the result cannot be mistaken for an address or a command.

    Raises:
        ConfigError: it names nothing, something other than a file, an unknown scheme, a command that is
            not allowed, or more than `MAX_NAMES` shards.
    """
    if _exists(pattern):
        return _expand_path(pattern, pattern)
    if is_pipe(pattern.strip()) and allow_pipe:  # braces and colons belong to the command
        return [PIPE + pattern.strip()[len(PIPE) :]]
    names: list[str] = []
    for part in _SEPARATOR.split(pattern):
        for text in expand_braces(part):
            names += _expand_text(text, pattern, allow_pipe)
            if len(names) > MAX_NAMES:
                raise _too_many(pattern)
    return names


def _expand_text(text: str, pattern: str, allow_pipe: bool) -> list[str]:
    """Return what a text without braces names; nothing after this decides what it is."""
    scheme = _SCHEME.match(text.strip())
    if scheme is None or _exists(text):
        return _expand_path(text, pattern)
    if is_pipe(text.strip()):
        if not allow_pipe:
            raise ConfigError(
                f"shards: {pattern!r} runs a command. Set allow_pipe: true if you trust whoever wrote it."
            )
        return [PIPE + text.strip()[len(PIPE) :]]
    address = scheme[0].lower() + text.strip()[scheme.end() :]
    if address.startswith(REMOTE):
        return [address]
    raise ConfigError(
        f"shards: {text!r} is neither a file here nor an address that is read (local paths, http:// and "
        "https://). Copy the shards to this machine, or use a command (pipe:...) with allow_pipe: true."
    )


def _expand_path(text: str, pattern: str) -> list[str]:
    try:
        path = Path(text).expanduser()
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, an unknown user
        raise ConfigError(f"shards: {pattern!r:.200} names no file ({first_line(error)}).") from error
    if not text.strip():
        raise ConfigError(f"shards: {pattern!r:.200} names no file: a name in it is empty.")
    files = [path]
    if is_folder:
        files = _files_in(path)
    elif not exists and glob.has_magic(text):
        matches = glob.iglob(str(path), recursive=True)  # noqa: PTH207 (Path.glob takes relative patterns only)
        files = sorted(map(Path, matches))
        if not files:
            raise ConfigError(f"shards: {pattern!r} names no file: nothing matches {str(path)!r}.")
    for file in files:
        _check_file(file, pattern)
    # "pipe:x.tar" may be the name of a file
    return [f"./{file}" if _SCHEME.match(str(file).strip()) else str(file) for file in files]


def _files_in(folder: Path) -> list[Path]:
    check_index(folder)
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    shards = [file for file in files if file.name.lower().endswith(SHARD_SUFFIXES)]
    others = [f.name for f in files if f not in shards and f.name.lower().endswith(_OTHER_ARCHIVES)]
    if not shards:
        hint = f" It holds {', '.join(others[:3])}: unpack or decompress them." if others else ""
        if any(file.is_dir() for file in files):
            hint += f" For shards in its subfolders write {str(folder / '**' / '*.tar')!r}."
        raise ConfigError(f"shards: the folder {folder} holds no shard ({', '.join(SHARD_SUFFIXES)}).{hint}")
    if others:
        logger.warning("%s: %d archives are not read: %s", folder, len(others), ", ".join(others[:5]))
    return shards


def _check_file(file: Path, pattern: str) -> None:
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        siblings = [path.name for path in file.parent.glob("*")] if file.parent.is_dir() else []
        near = nearest(file.name, siblings)
        hint = f" Did you mean {near[0]}?" if near else ""
        link = " (a link that leads nowhere)" if file.is_symlink() else ""
        raise ConfigError(f"shards: {pattern!r} names no file: {file}{link}.{hint}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"shards: {pattern!r:.200} names no file ({first_line(error)}).") from error
    if not stat.S_ISREG(mode):
        raise ConfigError(f"shards: {file} is a {kind_of(mode)}, not a file.")


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, an unknown user
        return False


def expand_braces(text: str) -> Iterator[str]:
    """Yield the expansions of ``{a,b}``, ``{000..127}`` and ``{0..8..2}`` in a text, in order.

    Other braces stay as they are.

    Raises:
        ConfigError: more than `MAX_NAMES` expansions.

    >>> list(expand_braces("{a,b}/{08..10}.tar"))[:4]
    ['a/08.tar', 'a/09.tar', 'a/10.tar', 'b/08.tar']
    """
    try:
        if _count(text) > MAX_NAMES:
            raise _too_many(text)
        yield from _expanded(text)
    except RecursionError:
        raise ConfigError(f"shards: {text!r:.200} has too many braces.") from None


def _expanded(text: str) -> Iterator[str]:
    group = _first_group(text)
    if group is None:
        yield text
        return
    before, choices, after = group
    endings = list(_expanded(after))
    for choice in choices:
        for middle in [choice] if isinstance(choices, _Range) else _expanded(choice):
            for ending in endings:
                yield before + middle + ending


def _count(text: str) -> int:
    """Return the number of expansions, without making them."""
    group = _first_group(text)
    if group is None:
        return 1
    _, choices, after = group
    return (len(choices) if isinstance(choices, _Range) else sum(map(_count, choices))) * _count(after)


class _Range(Sequence[str]):
    """The texts of ``{first..last..step}``, zero-padded if one of its ends is."""

    def __init__(self, first: str, last: str, step: str | None) -> None:
        self._is_letter = first.isalpha()
        start, stop = (ord(first), ord(last)) if self._is_letter else (int(first), int(last))
        by = max(1, abs(int(step or 1)))
        self._values = range(start, stop + 1, by) if start <= stop else range(start, stop - 1, -by)
        is_padded = any(re.match(r"-?0\d", end) for end in (first, last))
        self._width = max(len(first), len(last)) if is_padded else 0

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # slices are not needed
        value = self._values[index]
        return chr(value) if self._is_letter else f"{value:0{self._width}d}"


def _first_group(text: str) -> tuple[str, Sequence[str], str] | None:
    """Return what precedes the first braces that can be expanded, their choices, and the rest."""
    for start, commas, end in sorted(_braces(text)):
        ends = _RANGE.fullmatch(text, start + 1, end)
        if ends and ends[1].isalpha() == ends[2].isalpha():
            return text[:start], _Range(ends[1], ends[2], ends[3]), text[end + 1 :]
        if commas:
            parts = [text[a + 1 : b] for a, b in itertools.pairwise([start, *commas, end])]
            return text[:start], parts, text[end + 1 :]
    return None


def _braces(text: str) -> Iterator[tuple[int, list[int], int]]:
    """Yield each pair of braces: where it opens, the commas directly in it, where it closes."""
    opened: list[tuple[int, list[int]]] = []
    for index, character in enumerate(text):
        if character == "{":
            opened.append((index, []))
        elif character == "}" and opened:
            yield (*opened.pop(), index)
        elif character == "," and opened:
            opened[-1][1].append(index)


def _too_many(pattern: str) -> ConfigError:
    return ConfigError(f"shards: {pattern!r:.200} stands for more than {MAX_NAMES:,} shards.")
