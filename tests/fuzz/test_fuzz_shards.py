"""Damaged tar shards: nothing hangs or escapes, and no sample is lost or changed without a word."""

from __future__ import annotations

import gzip
import io
import random
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from damage import bounded, damaged, seeds

from lavis_lite.datasets.web.samples import has_image
from lavis_lite.datasets.web.shards import Shard, count_samples, raw_samples

Samples = Mapping[str, Mapping[str, bytes]]


def plain_samples() -> dict[str, dict[str, bytes]]:
    """Return samples of sizes around those of tar's blocks."""
    draw = random.Random(0)
    return {
        f"{number:04d}": {
            "jpg": b"\xff\xd8" + draw.randbytes(size),
            "txt": f"text {number}".encode() * number,
        }
        for number, size in enumerate((700, 1022, 30, 1500, 510, 2000), start=1)
    }


def long_named_samples() -> dict[str, dict[str, bytes]]:
    """Return the same under names that no plain header can hold."""
    return {f"{'folder/' * 20}ünïcode-{key}": members for key, members in plain_samples().items()}


def tar_of(samples: Samples, tar_format: int) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tar_format) as tar:
        for key, members in samples.items():
            for suffix, member in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(member)
                tar.addfile(info, io.BytesIO(member))
    return content.getvalue()


KINDS = {
    "plain": (plain_samples(), tar_of(plain_samples(), tarfile.USTAR_FORMAT)),
    "gzipped": (
        plain_samples(),
        gzip.compress(tar_of(plain_samples(), tarfile.USTAR_FORMAT), mtime=0),
    ),
    "gnu": (long_named_samples(), tar_of(long_named_samples(), tarfile.GNU_FORMAT)),
    "pax": (long_named_samples(), tar_of(long_named_samples(), tarfile.PAX_FORMAT)),
}


def read(path: Path) -> tuple[dict[str, dict[str, bytes]], list[str]]:
    """Return the samples of a shard by key, and what is said of its losses."""
    errors: list[str] = []
    samples = {
        raw["__key__"]: {suffix: member for suffix, member in raw.items() if not suffix.startswith("__")}
        for raw in raw_samples(Shard(str(path)), errors.append)
    }
    return samples, errors


@pytest.mark.parametrize("kind", KINDS)
def test_whole_shards_give_every_sample_and_no_error(kind, tmp_path):
    samples, content = KINDS[kind]
    (tmp_path / "a.tar").write_bytes(content)
    assert read(tmp_path / "a.tar") == (samples, [])


def is_accounted_for(read_samples: Samples, originals: Samples, content: bytes) -> bool:
    """Return whether damage without a word can only be in what tar has no checksum of.

    Those are the bytes of members, and names in extended headers: a sample may differ where each of its
    members is still in the file as it was read, and a changed name leaves both halves to be seen.
    """
    for key, original in originals.items():
        if read_samples.get(key) == original:
            continue
        for suffix, member in original.items():
            others = [sample[suffix] for sample in read_samples.values() if suffix in sample]
            changed = read_samples.get(key, {}).get(suffix)
            in_place = changed is not None and len(changed) == len(member) and changed in content
            if not in_place and member not in others:
                return False
    return True


@pytest.mark.parametrize("seed", seeds(quick=120, full=4000))
def test_a_damaged_shard_gives_good_samples_or_says_what_is_lost(seed, tmp_path):
    draw = random.Random(seed)
    kind = draw.choice(list(KINDS))
    originals, whole = KINDS[kind]
    content, faults = damaged(whole, draw)
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with bounded(seconds=20, mebibytes=64):
        samples, errors = read(path)
        counted = count_samples(Shard(str(path))) if samples else 0
    # a flipped bit makes .jpg to .jpc, which is an image, too
    assert counted == sum(map(has_image, samples.values())), f"{kind}: {faults}"
    assert errors or is_accounted_for(samples, originals, content), f"{kind}: {faults}"
    if kind != "gzipped" and re.fullmatch(
        r"one bit flipped at \d+|\d+ (more )?bytes (gone |twice )?at \d+", faults
    ):
        lost = [key for key, original in originals.items() if samples.get(key) != original]
        assert len(lost) <= 2, f"{kind}: {faults} cost {lost}"
