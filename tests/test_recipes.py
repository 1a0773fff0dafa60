"""Every recipe in projects/ parses, names what exists, and builds its model and data sets."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bootstrap import Loop, read_loop
from processes import run

from lavis_lite.common.config.layering import load_config
from lavis_lite.common.config.schema import parse
from lavis_lite.common.registry import registry
from lavis_lite.models.blip_models.blip import CONFIGS
from lavis_lite.models.weights.tokenizer import PUBLISHED_VOCABULARY

REPOSITORY = Path(__file__).parent.parent
LOOPS = sorted((REPOSITORY / "projects" / "blip").rglob("bootstrap_*.yaml"))
LOOPS += sorted((REPOSITORY / "projects" / "blip").rglob("ablation_*.yaml"))
RECIPES = sorted(set((REPOSITORY / "projects" / "blip").rglob("*.yaml")) - set(LOOPS))
SCRIPTS = sorted((REPOSITORY / "run_scripts" / "blip").rglob("*.sh"))
RUN = REPOSITORY / "run_scripts" / "run.sh"


def ids(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=ids(RECIPES))
def test_a_recipe_builds_its_model_and_names_real_data_sets_and_splits(path):
    config = load_config(path, OPTIONS.get(path.stem, []))
    model_class = registry.get_model_class(config.arch)
    settings = replace(config.model, load_finetuned=False, load_pretrained=False)
    if settings.tokenizer != "shapes":
        words = with_published_words(settings.med_config)
        settings = replace(settings, tokenizer="shapes", med_config=words)
    with torch.device("meta"):
        model = model_class(settings)
    assert sum(parameter.numel() for parameter in model.parameters()) > 1e6
    registry.get_task_class(config.run.task)(config.run)
    registry.get_runner_class(config.run.runner)
    wanted = [] if config.run.evaluate else [*config.run.train_splits, *config.run.valid_splits]
    wanted += config.run.test_splits
    splits: set[str] = set()
    for name, settings in config.datasets.items():
        splits.update(registry.get_builder_class(name)(settings).splits())
    assert set(wanted) <= splits


# What a recipe leaves to its user.
OPTIONS = {"caption_json": ["datasets.caption_json.images=.", "datasets.caption_json.annotations=a.json"]}


def with_published_words(name: str | dict | None) -> dict:
    import json

    if isinstance(name, dict):
        return {**name, "vocab_size": PUBLISHED_VOCABULARY}
    content = json.loads((CONFIGS / f"{name or 'med_config'}.json").read_text())
    return {**content, "vocab_size": PUBLISHED_VOCABULARY}


@pytest.mark.parametrize("path", SCRIPTS, ids=ids(SCRIPTS))
def test_a_script_runs_a_recipe_that_is_there(path, tmp_path):
    said = run(["bash", str(path), "run.max_epoch=3"], cwd=tmp_path, PYTHON="echo")
    command = said.stdout.split(" train.py ")[1].split()
    assert command[0] == "--cfg-path" and (REPOSITORY / command[1]) in RECIPES
    assert command[2:] == ["--options", "run.max_epoch=3"]
    assert path.stat().st_mode & 0o111


@pytest.mark.slow
@pytest.mark.parametrize("path", LOOPS, ids=ids(LOOPS))
def test_a_loop_names_recipes_and_stages_that_are_there(path):
    loop = parse(Loop, read_loop(path), where="")
    for name, stage in loop.stages.items():
        folders = dict.fromkeys(loop.stages, "output/somewhere")
        options = [f"{key}={str(value).format(**folders)}" for key, value in stage.options.items()]
        load_config(stage.recipe, [*OPTIONS.get(Path(stage.recipe).stem, []), *options])
        assert name


def test_every_recipe_and_loop_runs_by_its_name():
    names = [path.stem for path in [*RECIPES, *LOOPS]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["nlvr_ft"], "train.py --cfg-path projects/blip/train/nlvr_ft.yaml"),
        (
            ["nlvr_eval", "--import", "a.py", "--options", "run.seed=1"],
            "train.py --cfg-path projects/blip/eval/nlvr_eval.yaml --import a.py --options run.seed=1",
        ),
        (
            ["ablation_parts_shapes", "--seeds", "1", "2"],
            "projects/blip/capfilt/bootstrap.py projects/blip/capfilt/ablation_parts_shapes.yaml --seeds 1 2",
        ),
    ],
)
def test_the_script_for_all_recipes_hands_on_what_follows_the_name(words, command, tmp_path):
    said = run(["bash", str(RUN), *words], cwd=tmp_path, PYTHON="echo")
    assert said.returncode == 0 and said.stdout.strip().endswith(command)


def test_a_recipe_that_is_not_there_is_named_with_the_nearest():
    said = run(["bash", str(RUN), "caption_coco"], PYTHON=sys.executable)
    assert said.returncode == 1
    assert "caption_coco: no such recipe. Did you mean caption_coco_ft" in said.stderr
    assert run(["bash", str(RUN)]).returncode == 1


def test_the_published_values_stand_in_the_recipes():
    """Those that are easily changed by accident; the paper's code is the source."""
    expected = {
        "retrieval_coco_ft": (1e-5, 6, 32),
        "vqav2_ft": (2e-5, 10, 16),
        "nlvr_ft": (3e-5, 15, 16),
        "pretrain_14m": (3e-4, 20, 75),
        "caption_coco_ft": (1e-5, 5, 32),
    }
    for name, (rate, epochs, batch) in expected.items():
        run = load_config(REPOSITORY / f"projects/blip/train/{name}.yaml", []).run
        assert (run.init_lr, run.max_epoch, run.batch_size_train) == (rate, epochs, batch)
        assert replace(run).weight_decay == 0.05
