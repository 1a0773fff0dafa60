"""Small real things that the tests share: a drawn data set, sizes of a tiny captioner, a run file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from tiers import (  # noqa: F401  (hooks of pytest)
    pytest_collection_modifyitems,
    pytest_deselected,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
    wants_weights,
)

from lavis_lite.common.storage.cache import cache_root

# Children of the tests (train.py in processes of its own) inherit this: they must not oversubscribe.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A plug-in of the previous version lies there: it registers itself where it is imported.
collect_ignore = ["fixtures"]

REPOSITORY = Path(__file__).parent.parent
PROJECTS = str(REPOSITORY / "projects")
SHAPES = str(REPOSITORY / "projects" / "shapes")  # as `imports` and --import name it

TINY_SIZES: dict[str, Any] = {
    "vit_type": {"embed_dim": 32, "depth": 2, "num_heads": 4, "patch_size": 16},
    "image_size": 32,
    "med_config": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    },
}


def pytest_configure(config: pytest.Config) -> None:
    """Keep the hub out of the tests, but for those that are about what it holds."""
    if not wants_weights(config):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """A cache folder of the tests' own, so that nothing outside it is read or written."""
    if wants_weights(pytestconfig):
        return cache_root()
    folder = tmp_path_factory.mktemp("cache")
    os.environ["LAVIS_LITE_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def drawn_data_sets() -> None:
    """Register the data sets of projects/shapes, as a run file's `imports` does."""
    import shapes  # noqa: F401


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Take back what a test registers, so that the next test meets the library's own parts alone."""
    from lavis_lite.common.registry import registry

    registries = vars(registry).values()
    before = [set(entries._entries) for entries in registries]
    yield
    for entries, names in zip(registries, before, strict=True):
        for name in set(entries._entries) - names:
            if not entries.get(name).__module__.startswith("lavis_lite."):
                entries.unregister(name)


@pytest.fixture(scope="session")
def shapes_folder(cache: Path) -> Path:
    """Forty drawn images to train on, ten to validate, ten to test."""
    from shapes.write_caption import CaptionSettings

    settings = CaptionSettings(seed=7, train_images=40, val_images=10, test_images=10, drawn_size=32)
    return settings.draw(cache / "small_shapes")


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process; return its exit code, and what it wrote to output and to error."""

    from lavis_lite.cli import main

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
def photos(tmp_path: Path) -> Path:
    """A folder of three small photographs."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 30), (number * 90, 9, 9)).save(folder / f"{number}.jpg")
    return folder


@pytest.fixture
def run_file(tmp_path: Path, shapes_folder: Path) -> RunFile:
    """A run file that trains a tiny captioner on the small drawn data set."""
    return RunFile(tmp_path, shapes_folder)


class RunFile:
    """A config that a test can change before it is written."""

    def __init__(self, folder: Path, shapes_folder: Path) -> None:
        self.folder = folder
        self.output = folder / "run"
        self.sections: dict[str, Any] = {
            "imports": [SHAPES],
            "model": {"arch": "blip_caption", "model_type": "tiny", **TINY_SIZES},
            "datasets": {
                "shapes_caption": {
                    "folder": str(shapes_folder),
                    "seed": 7,
                    "train_images": 40,
                    "val_images": 10,
                    "test_images": 10,
                    "drawn_size": 32,
                    "captions_per_image": 2,
                }
            },
            "run": {
                "task": "captioning",
                "init_lr": 1e-3,
                "max_epoch": 2,
                "batch_size_train": 8,
                "batch_size_eval": 5,
                "num_workers": 0,
                "num_beams": 2,
                "max_len": 12,
                "min_len": 1,
                "log_freq": 1,
                "metrics": ["BLEU", "CIDEr"],
                "metric_tokenizer": "python",
                "best_metric": "CIDEr",
                "output_dir": str(self.output),
                "device": "cpu",
                "report": False,
            },
        }

    def write(self, **run: Any) -> Path:
        """Write the file, with changes to the ``run`` section, and return its path."""
        self.sections["run"].update(run)
        path = self.folder / "run.yaml"
        path.write_text(yaml.safe_dump(self.sections, sort_keys=False), encoding="utf-8")
        return path
