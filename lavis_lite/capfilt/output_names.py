"""Names in the output folder: of units, which become file names, and of samples, which become tar members."""

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
    """Return a digest of `size` bytes as hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=size).hexdigest()


def canonical_source(source: str) -> str:
    """Return the one spelling of a shard or folder, for any working directory and through any links."""
    return os.path.realpath(source) if Shard(source).is_local else source


def unit_names(sources: Sequence[str]) -> list[str]:
    """Return the name of each shard in the output: its file name, if that is safe and unique.

    Otherwise a digest of its path or address is appended. Names that differ only in letter case or
    Unicode composition count as equal, as they do on some file systems.
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
    """Return the name of each sample of a unit in the output: its key, if that is safe and not used yet.

    A safe name stays below the folder where the tar is unpacked, is valid UTF-8, and has no dot in its
    last part, where a reader of shards would begin the suffix.
    """
    names: list[str] = []
    used: set[str] = set()
    all_keys = set(keys)
    for key in keys:
        name = key
        if not _is_safe(key) or key in used:
            base = name = f"{_file_name(key).replace('.', '_')}-{_short_digest(key)}"
            number = 1
            while name in used or name in all_keys:
                number += 1
                name = f"{base}-{number}"
        used.add(name)
        names.append(name)
    return names


def _stem(source: str) -> str:
    if Shard(source).is_local:
        real = Path(canonical_source(source)).name
        # A cache may store the file under a digest and link to it by its name.
        name = real if real.endswith(".tar") else Path(source).name
    else:
        name = Path(urlsplit(source).path).name if "://" in source else source
    return name.removesuffix(".tar")


def _file_name(text: str) -> str:
    """Return `text` as a file name for any system; equal to `text` if nothing was lost."""
    name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)
    if name.startswith((".", "-")):
        name = f"_{name[1:]}"
    return name.encode()[:STEM_BYTES].decode(errors="ignore") or "unnamed"


def _is_safe(key: str) -> bool:
    parts = key.split("/")
    return (
        key.isprintable()  # surrogates, as for bytes that are not UTF-8, are not
        and len(key.encode()) <= KEY_BYTES
        and "\\" not in key
        and ":" not in key
        and all(part == part.strip() and part and not part.startswith(".") for part in parts)
        and "." not in parts[-1]
    )


def _short_digest(text: str) -> str:
    return digest_of(text.encode("utf-8", "surrogatepass"), size=6)
