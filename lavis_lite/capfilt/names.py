"""Names in the output: of units, which become file names, and of samples, which become members of a tar."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from lavis_lite.datasets.web.shards import Shard

STEM_BYTES = 100
KEY_BYTES = 200


def digest_of(content: bytes, size: int = 16) -> str:
    """Return a digest of `size` bytes in hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=size).hexdigest()


def canonical_source(source: str) -> str:
    """Return one spelling of a shard or folder, whatever the working directory and the links on the way."""
    return os.path.realpath(source) if Shard(source).is_local else source


def unit_names(sources: Sequence[str]) -> list[str]:
    """Return the name in the output of each shard: that of its file, if it is safe and no other has it.

    Otherwise a digest of its canonical path or address stands behind it. Names that differ only in
    letter case or in Unicode composition count as equal, since some file systems take them for one.
    """
    stems = [_stem(source) for source in sources]
    cleaned = [_file_name(stem) for stem in stems]
    digests = [_short_digest(canonical_source(source)) for source in sources]
    lengthened = {number for number, stem in enumerate(stems) if cleaned[number] != stem}
    while True:
        names = [
            f"{name}-{digest}" if number in lengthened else name
            for number, (name, digest) in enumerate(zip(cleaned, digests, strict=True))
        ]
        folded = [unicodedata.normalize("NFC", name).casefold() for name in names]
        counts = Counter(folded)
        colliding = {number for number, name in enumerate(folded) if counts[name] > 1} - lengthened
        if not colliding:
            return names
        lengthened |= colliding


def output_keys(keys: Sequence[str]) -> list[str]:
    """Return the name in the output of each sample of a unit: its own, if it is safe and not taken yet.

    A safe name stays below the folder where the tar is unpacked, is valid UTF-8, and has no dot in its
    last part, so that every reader of webdataset's layout finds where the suffix begins.
    """
    names: list[str] = []
    taken: set[str] = set()
    own = set(keys)
    for key in keys:
        name = key
        if not _is_safe(key) or key in taken:
            base = name = f"{_file_name(key).replace('.', '_')}-{_short_digest(key)}"
            number = 1
            while name in taken or name in own:
                number += 1
                name = f"{base}-{number}"
        taken.add(name)
        names.append(name)
    return names


def _stem(source: str) -> str:
    shard = Shard(source)
    if shard.is_local:
        real = Path(canonical_source(source)).name
        # A cache may keep the file under a digest and link to it by its name.
        name = real if real.endswith(".tar") else Path(source).name
    elif "://" in source:
        name = Path(urlsplit(source).path).name
    else:
        name = source
    return name.removesuffix(".tar")


def _file_name(text: str) -> str:
    """Return `text` as a file name for any system; it differs from `text` where something was lost."""
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)
    if kept.startswith((".", "-")):
        kept = f"_{kept[1:]}"
    return kept.encode()[:STEM_BYTES].decode(errors="ignore") or "unnamed"


def _is_safe(key: str) -> bool:
    parts = key.split("/")
    return (
        key.isprintable()  # which half a surrogate pair is not, nor a byte that is not UTF-8
        and len(key.encode()) <= KEY_BYTES
        and "\\" not in key
        and ":" not in key
        and all(part == part.strip() and part and not part.startswith(".") for part in parts)
        and "." not in parts[-1]
    )


def _short_digest(text: str) -> str:
    return digest_of(text.encode("utf-8", "surrogatepass"), size=6)
