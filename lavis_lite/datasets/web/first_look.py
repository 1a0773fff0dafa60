"""A look at the first samples before the work: is there one that can be trained on?"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.media.images import open_image
from lavis_lite.datasets.web.shards import (
    IMAGE_MEMBERS,
    SHARD_ERRORS,
    Damage,
    RawSample,
    Shard,
    UnusedMember,
    error_text,
    read_shard,
)
from lavis_lite.datasets.web.tar import shown
from lavis_lite.datasets.web.texts import texts_of

MAX_SAMPLES = 100
MAX_SHARDS = 10


def check_usable(shards: Sequence[Shard], text_key: str) -> None:
    """Look for one sample that can be trained on, among the first samples of the first shards.

    Raises:
        ConfigError: there is none; says what is wrong with them, and what the shards hold.
    """
    look = _Look(text_key)
    for shard in shards[:MAX_SHARDS]:
        if look.finds_usable(shard):
            return
        if look.samples >= MAX_SAMPLES:
            break
    raise ConfigError(look.message(shards))


class _Look:
    """What is seen of the shards until the first usable sample."""

    def __init__(self, text_key: str) -> None:
        self.text_key = text_key
        self.samples = 0
        self.errors: Counter[str] = Counter()
        self.members: Counter[str] = Counter()

    def finds_usable(self, shard: Shard) -> bool:
        """Return whether a shard has a usable sample before `MAX_SAMPLES` were seen."""
        try:
            for item in read_shard(shard):
                if isinstance(item, Damage):
                    self.errors[item.text] += 1
                elif isinstance(item, UnusedMember):
                    self.members[f"members not used ({item.reason})"] += 1
                else:
                    self.samples += 1
                    error = self._error_of(item)
                    if not error:
                        return True
                    self.errors[error] += 1
                    self.members.update(_endings(item))
                    if self.samples >= MAX_SAMPLES:
                        return False
        except SHARD_ERRORS as error:
            self.errors[error_text(shard, error)] += 1
        return False

    def _error_of(self, raw: RawSample) -> str:
        """Return why a sample cannot be trained on, in the same words for samples of one kind."""
        image = next((raw[suffix] for suffix in IMAGE_MEMBERS if suffix in raw), None)
        if image is None:
            return "has no image"
        try:
            texts_of(raw, self.text_key)
            open_image(io.BytesIO(image), name="its image")
        except (ValueError, OSError, MemoryError) as error:
            return str(error) or type(error).__name__
        return ""

    def message(self, shards: Sequence[Shard]) -> str:
        """Return what is wrong with the samples, and what the shards hold."""
        where = f"{shards[0].name} and the following shards" if len(shards) > 1 else shards[0].name
        errors = "; ".join(f"{count} x {text}" for text, count in self.errors.most_common(3))
        members = ", ".join(f"{count} {text}" for text, count in self.members.most_common(6))
        return (
            f"shards: {where}: none of the first {self.samples} samples can be trained on"
            f"{f' ({errors})' if errors else ''}. They hold {members or 'no members'}. A sample is KEY.jpg "
            "with KEY.txt, or with a KEY.json of which text_key names a field; "
            f"text_key is {self.text_key!r}."
        )


def _endings(raw: RawSample) -> Iterator[str]:
    """Yield what the names of a sample's members end in, from the first dot on."""
    inner = str(raw["__key__"]).rpartition("/")[2].partition(".")[2]
    for suffix in raw:
        if not suffix.startswith("__"):
            yield f".{shown(inner, 40)}.{suffix}" if inner else f".{suffix}"
