"""Command lines run in this process, and a few photographs for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lavis_lite.cli import main


@pytest.fixture
def command(capsys, monkeypatch):
    """Run a command line in this process; return its exit code, and what it wrote to output and to error."""

    def call(*words: str, **environment: str) -> tuple[int, str, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments=words)
        written = capsys.readouterr()
        return int(ended.value.code or 0), written.out, written.err

    return call


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 30), (number * 90, 9, 9)).save(folder / f"{number}.jpg")
    return folder
