"""From the members of a shard to samples: which members belong together, and which are not used, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lavis_lite.common.media.images import IMAGE_SUFFIXES, UNREADABLE_IMAGE_SUFFIXES
from lavis_lite.datasets.web.tar import FILE, FOLDER, TarMember, shown

IMAGE_MEMBERS = tuple(suffix.lstrip(".") for suffix in IMAGE_SUFFIXES)
TEXT_MEMBERS = ("txt", "json")
MAX_MEMBER_BYTES = 256 << 20
MAX_TEXT_BYTES = 4 << 20
MAX_SAMPLE_BYTES = 512 << 20
MAX_WAITING_BYTES = 128 << 20  # of samples in memory that lack an image or a text
_WAITING_OVERHEAD = 1000  # bytes of a waiting sample besides its contents
MAX_REASONS = 50
SHOWN_NAMES = 5

RawSample = dict[str, Any]

_HINTS = {
    "hard link": ": pack with tar --hard-dereference",
    "symbolic link": ": pack with tar --dereference",
    "sparse file": ": pack without --sparse",
}


@dataclass(frozen=True)
class UnusedMember:
    """A member that is not part of any sample.

    Attributes:
        is_loss: False for a folder, which has no content.
    """

    name: str
    reason: str
    is_loss: bool = True


class UnusedMembers:
    """Counts unused members by reason, with the first names of each.

    Attributes:
        counts: number of members by reason.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._names: dict[str, list[str]] = {}

    def add(self, member: UnusedMember) -> None:
        """Count a member."""
        reason = member.reason
        if reason not in self.counts and len(self.counts) >= MAX_REASONS:
            reason = "further reasons"
        self.counts[reason] += 1
        names = self._names.setdefault(reason, [])
        if len(names) < SHOWN_NAMES:
            names.append(shown(member.name))

    def lines(self) -> Iterator[str]:
        """Yield one line for each reason."""
        for reason, count in self.counts.items():
            names = self._names[reason]
            more = f" and {count - len(names)} more" if count > len(names) else ""
            members = "member is" if count == 1 else "members are"
            yield f"{count} {members} not used ({reason}): {', '.join(names)}{more}"


def image_in(sample: RawSample) -> bytes | None:
    """Return the image of a sample; only samples that have one are trained on and counted."""
    return next((sample[suffix] for suffix in IMAGE_MEMBERS if suffix in sample), None)


def has_image(sample: RawSample) -> bool:
    """Return whether a sample has an image."""
    return image_in(sample) is not None


def split_name(name: str) -> tuple[str, str]:
    """Return the key and the suffix of a member: what precedes and what follows its last dot.

    >>> split_name("a/photo.v1.JPG")
    ('a/photo.v1', 'jpg')
    """
    stem, dot, suffix = name.rpartition(".")
    return (stem, suffix.lower()) if dot and "/" not in suffix else (name, "")


def why_not_used(member: TarMember) -> str:
    """Return why a member cannot be part of any sample, empty if it can."""
    if member.kind != FILE:
        return f"a {member.kind}{_HINTS.get(member.kind, '')}"
    key, suffix = split_name(member.name)
    parts = re.split(r"[/\\]", member.name)
    if "\0" in member.name:
        return "a NUL character in its name"
    if not parts[0] or re.match(r"[A-Za-z]:$", parts[0]):
        return "an absolute path as its name: pack with relative paths"
    if ".." in parts:
        return "a name that leaves its folder"
    if parts[-1].startswith("._") or "__MACOSX" in parts:
        return "metadata that macOS adds"
    if f".{suffix}" in UNREADABLE_IMAGE_SUFFIXES:
        return f"a .{suffix} image, which is not read here: convert it, to .jpg for example"
    if suffix not in IMAGE_MEMBERS and suffix not in TEXT_MEMBERS:
        what = f".{shown(suffix, 20)} is" if suffix else "without a suffix it is"
        return f"{what} neither an image nor .txt or .json"
    if not key or key.endswith("/"):
        return "nothing before the dot of its name"
    limit = MAX_TEXT_BYTES if suffix in TEXT_MEMBERS else MAX_MEMBER_BYTES
    return f"more than {limit >> 20} MiB" if member.size > limit else ""


@dataclass
class _Sample:
    key: str
    contents: dict[str, bytes] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    size: int = 0
    has_waited: bool = False

    @property
    def is_complete(self) -> bool:
        return _is_complete(self.contents)

    def add(self, member: TarMember, suffix: str) -> Iterator[UnusedMember]:
        if suffix in self.contents:
            yield UnusedMember(member.name, "a second member of this name")
        elif self.size + member.size > MAX_SAMPLE_BYTES:
            yield UnusedMember(member.name, f"a sample of more than {MAX_SAMPLE_BYTES >> 20} MiB")
        else:
            self.contents[suffix] = member.content
            self.names.append(member.name)
            self.size += member.size


def _is_complete(contents: dict[str, bytes]) -> bool:
    return has_image(contents) and any(suffix in contents for suffix in TEXT_MEMBERS)


class Grouper:
    """Joins the members of a shard to samples.

    Members whose names are equal up to the last dot are a sample. A sample with an image and a text is
    yielded when another name begins. Other samples wait for what they lack, up to `MAX_WAITING_BYTES`
    in all, so that archives that are not sorted by name can be read; a sample that has waited is not
    yielded when it becomes complete, because more of its members may follow.

    Args:
        url: "__url__" of the samples.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._current: _Sample | None = None
        self._previous_was_whole = True
        self._beside: list[str] = []  # keys that came between the members of the current sample
        self._waiting: dict[str, _Sample] = {}
        self._waiting_bytes = 0
        self._done: dict[str, frozenset[str]] = {}  # key -> suffixes
        self._suffix_sets: dict[frozenset[str], frozenset[str]] = {}  # to store each set once

    def add(self, member: TarMember) -> Iterator[RawSample | UnusedMember]:
        """Add a member; yield the samples and unused members that are certain now."""
        if reason := why_not_used(member):
            yield UnusedMember(member.name, reason, is_loss=member.kind != FOLDER)
            return
        key, suffix = split_name(member.name)
        is_beside = self._current is not None and key.startswith(f"{self._current.key}.")
        if not is_beside and (self._current is None or self._current.key != key):
            yield from self._close_current()
        if key in self._done:
            is_second = suffix in self._done[key]
            yield UnusedMember(
                member.name,
                "a second member of this name"
                if is_second
                else "far from the rest of its sample: sort the archive (tar --sort=name)",
            )
        elif is_beside:  # a.mask.png between a.jpg and a.txt
            sample = self._take_waiting(key) or _Sample(key)
            yield from sample.add(member, suffix)
            self._beside.append(key)
            yield from self._wait(sample)
        else:
            self._current = self._current or self._take_waiting(key) or _Sample(key)
            yield from self._current.add(member, suffix)

    def finish(self) -> Iterator[RawSample | UnusedMember]:
        """Yield what is left when there are no more members."""
        yield from self._close_current()
        while self._waiting:
            yield from self._release(next(iter(self._waiting)))

    def _close_current(self) -> Iterator[RawSample | UnusedMember]:
        sample, self._current = self._current, None
        beside, self._beside = self._beside, []
        if sample is None:
            return
        is_whole = sample.is_complete and not sample.has_waited
        previous_was_whole, self._previous_was_whole = self._previous_was_whole, is_whole
        if not is_whole or not previous_was_whole:  # two members of an unsorted archive may meet by chance
            yield from self._wait(sample)
            return
        yield self._emit(sample)
        for key in beside:
            yield from self._release(key)

    def _wait(self, sample: _Sample) -> Iterator[RawSample | UnusedMember]:
        sample.has_waited = True
        self._waiting[sample.key] = sample
        self._waiting_bytes += sample.size + _WAITING_OVERHEAD
        while self._waiting_bytes > MAX_WAITING_BYTES:
            yield from self._release(next(iter(self._waiting)))

    def _take_waiting(self, key: str) -> _Sample | None:
        sample = self._waiting.pop(key, None)
        if sample is not None:
            self._waiting_bytes -= sample.size + _WAITING_OVERHEAD
        return sample

    def _release(self, key: str) -> Iterator[RawSample | UnusedMember]:
        """Yield a sample that has waited, unless it only adds to another one (``a.mask.png``)."""
        sample = self._take_waiting(key)
        if sample is None:
            return
        if not self._is_addition(sample):
            yield self._emit(sample)
            return
        for name in sample.names:
            yield UnusedMember(name, "an addition to the sample of the same name without its second suffix")

    def _is_addition(self, sample: _Sample) -> bool:
        """Return whether a sample only adds to the one with its name up to the first dot.

        Examples are ``a.mask.png`` beside a complete sample ``a``, and ``a.extra.txt`` beside an image ``a``.
        """
        folder, slash, name = sample.key.rpartition("/")
        owner = folder + slash + name.partition(".")[0]
        if owner == sample.key or sample.is_complete:
            return False
        waiting = self._waiting.get(owner)
        suffixes = waiting.contents.keys() if waiting is not None else self._done.get(owner, frozenset())
        contents = dict.fromkeys(suffixes, b"")
        return _is_complete(contents) or (has_image(contents) and not has_image(sample.contents))

    def _emit(self, sample: _Sample) -> RawSample:
        suffixes = frozenset(sample.contents)
        self._done[sample.key] = self._suffix_sets.setdefault(suffixes, suffixes)
        return {"__key__": sample.key, "__url__": self._url, **sample.contents}
