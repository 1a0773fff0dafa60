"""Damaged output of CapFilt: the same command repairs it, or refuses it in words."""

from __future__ import annotations

import random
import shutil

from cleaning import clean, contents
from damage import bounded, damaged, seeds
from shards import write_shards

from lavis_lite.capfilt.output_reader import CapFiltError


def test_damaged_output_is_repaired_or_refused_in_words(tmp_path):
    crawl = write_shards(tmp_path / "crawl", [3, 2])
    finished, _ = clean(crawl, tmp_path / "out")
    expected = contents(finished.folder)
    files = sorted(file.relative_to(finished.folder) for file in finished.folder.rglob("*.*"))
    files = [file for file in files if not file.name.startswith(".")]
    for seed in seeds(quick=30, full=1000):
        draw = random.Random(seed)
        output = shutil.copytree(finished.folder, tmp_path / "damaged")
        file = output / draw.choice(files)
        content, what = damaged(file.read_bytes(), draw)
        file.write_bytes(content)
        with bounded():
            try:
                _, failed = clean(crawl, output)
            except CapFiltError as error:
                assert file.name == "settings.json" and "settings" in str(error), (seed, what)
            else:
                assert not failed and contents(output) == expected, (seed, file.name, what)
        shutil.rmtree(output)
