"""From the patterns of a config to the names of shards, each checked as it will be opened."""

from __future__ import annotations

import glob
import itertools
import logging
import re
import stat
from collections.abc import Iterator
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
# Two colons part patterns, but for those within the brackets of an address of IP version 6.
_SEPARATOR = re.compile(r"::(?![^][/]*\])")

logger = logging.getLogger(__name__)


def expand(pattern: str, allow_pipe: bool) -> list[str]:
    """Return the shards that a pattern names: paths of files that are there, addresses, commands.

    A path is never one that could be taken for an address or a command.

    Raises:
        ConfigError: it names nothing, something other than a file, a scheme that is not read, a command
            where none is allowed, or more than `MAX_NAMES` shards.
    """
    if _is_there(pattern):
        return _of_path(pattern, pattern)
    if is_pipe(pattern.strip()) and allow_pipe:  # braces and colons belong to the command
        return [PIPE + pattern.strip()[len(PIPE) :]]
    names: list[str] = []
    for part in _SEPARATOR.split(pattern):
        for text in expand_braces(part):
            names += _of_text(text, pattern, allow_pipe)
            if len(names) > MAX_NAMES:
                raise _too_many(pattern)
    return names


def _of_text(text: str, pattern: str, allow_pipe: bool) -> list[str]:
    """Return what a text without braces names; this is the last word on what it is."""
    if _is_there(text):
        return _of_path(text, pattern)
    scheme = _SCHEME.match(text.strip())
    if scheme is None:
        return _of_path(text, pattern)
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
        f"https://). Copy the shards to this machine, or use a command (pipe:...) with allow_pipe: true."
    )


def _of_path(text: str, pattern: str) -> list[str]:
    try:
        path = Path(text).expanduser()
        is_folder, is_there = path.is_dir(), path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, a user that is not known
        raise ConfigError(f"shards: {pattern!r:.200} names no file ({first_line(error)}).") from error
    if not text.strip():
        raise ConfigError(f"shards: {pattern!r:.200} names no file: a name in it is empty.")
    if is_folder:
        files = _of_folder(path)
    elif not is_there and glob.has_magic(text):
        names = glob.iglob(str(path), recursive=True)  # noqa: PTH207 (Path.glob takes relative patterns only)
        files = sorted(map(Path, names))
        if not files:
            raise ConfigError(f"shards: {pattern!r} names no file: nothing matches {str(path)!r}.")
    else:
        files = [path]
    for file in files:
        _check_file(file, pattern)
    return [_unmistakable(file) for file in files]


def _of_folder(folder: Path) -> list[Path]:
    check_index(folder)
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    shards = [file for file in files if file.name.lower().endswith(SHARD_SUFFIXES)]
    others = [
        file.name for file in files if file not in shards and file.name.lower().endswith(_OTHER_ARCHIVES)
    ]
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


def _is_there(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a user that is not known
        return False


def _unmistakable(path: Path) -> str:
    """Return a path as a name that is neither an address nor a command, whatever the file is called."""
    name = str(path)
    return f"./{name}" if _SCHEME.match(name.strip()) and not path.is_absolute() else name


def expand_braces(text: str) -> Iterator[str]:
    """Yield what a text with ``{a,b}``, ``{000..127}`` or ``{0..8..2}`` stands for, in order.

    Braces that are neither are left as they are.

    Raises:
        ConfigError: it stands for more than `MAX_NAMES` texts.

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
    """Return how many texts `text` stands for, without making them."""
    group = _first_group(text)
    if group is None:
        return 1
    _, choices, after = group
    own = len(choices) if isinstance(choices, _Range) else sum(_count(choice) for choice in choices)
    return own * _count(after)


class _Range:
    """The texts of ``{first..last..step}``, with as many digits as its ends have where one has zeros."""

    def __init__(self, first: str, last: str, step: str | None) -> None:
        self._is_letter = first.isalpha()
        start, stop = (ord(first), ord(last)) if self._is_letter else (int(first), int(last))
        by = max(1, abs(int(step or 1)))
        self._values = range(start, stop + 1, by) if start <= stop else range(start, stop - 1, -by)
        padded = any(re.match(r"-?0\d", end) for end in (first, last))
        self._width = max(len(first), len(last)) if padded else 0

    def __len__(self) -> int:
        return min(len(self._values), MAX_NAMES + 1)

    def __iter__(self) -> Iterator[str]:
        for value in self._values:
            yield chr(value) if self._is_letter else f"{value:0{self._width}d}"


_RANGE = re.compile(r"(-?\d{1,18}|[A-Za-z])\.\.(-?\d{1,18}|[A-Za-z])(?:\.\.(-?\d{1,9}))?")


def _first_group(text: str) -> tuple[str, list[str] | _Range, str] | None:
    """Return what stands before the first braces that mean several texts, these texts, and the rest."""
    for start, commas, end in sorted(_braces(text)):
        ends = _RANGE.fullmatch(text, start + 1, end)
        if ends and ends[1].isalpha() == ends[2].isalpha():
            return text[:start], _Range(ends[1], ends[2], ends[3]), text[end + 1 :]
        if commas:
            cuts = [start, *commas, end]
            parts = [text[a + 1 : b] for a, b in itertools.pairwise(cuts)]
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
