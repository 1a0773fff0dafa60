"""Configs: layered, strict, and clear about what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lavis_lite.common.config.layering import load_config
from lavis_lite.common.config.saved import write_saved_config
from lavis_lite.common.config.schema import ConfigError

# The run file of LAVIS's tutorial for finetuning the large captioner on COCO.
TUTORIAL = """
model:
  arch: blip_caption
  model_type: large_coco
  load_finetuned: False

datasets:
  coco_caption: # name of the dataset builder
    vis_processor:
        train:
          name: "blip_image_train"
        eval:
          name: "blip_image_eval"
    text_processor:
        train:
          name: "blip_caption"
          prompt: "a picture of "
        eval:
          name: "blip_caption"
    build_info:
      images:
        storage: coco/images

run:
  # task
  task: captioning
  # optimizer
  lr_sched: "linear_warmup_cosine_lr"
  init_lr: 2e-6
  min_lr: 0
  weight_decay: 0.05
  max_epoch: 5
  batch_size_train: 16
  batch_size_eval: 64
  num_workers: 4

  max_len: 20
  min_len: 5
  num_beams: 3

  seed: 42
  output_dir: "output/BLIP/Caption_coco"

  amp: False
  resume_ckpt_path: null

  evaluate: False
  train_splits: ["train"]
  valid_splits: ["val"]
  test_splits: ["test"]

  device: "cuda"
  world_size: 1
  dist_url: "env://"
  distributed: True
"""


@pytest.fixture
def tutorial(tmp_path: Path) -> Path:
    path = tmp_path / "caption_coco_large_ft.yaml"
    path.write_text(TUTORIAL, encoding="utf-8")
    return path


def test_the_tutorial_run_file_is_accepted_as_it_stands(tutorial):
    config = load_config(tutorial)
    assert config.run.init_lr == 2e-6
    assert config.run.num_beams == 3
    assert config.model.vit_type == "large"
    assert config.datasets["coco_caption"].build_info.annotations["val"].md5.startswith("b27384")


def test_a_data_set_takes_an_image_folder_of_its_own(tutorial):
    settings = yaml.safe_load(TUTORIAL)
    del settings["datasets"]["coco_caption"]["build_info"]
    settings["datasets"]["coco_caption"]["images"] = "my/images"
    tutorial.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert load_config(tutorial).datasets["coco_caption"].images == "my/images"


def test_options_lie_over_the_run_file_and_the_run_file_over_the_defaults(tutorial):
    config = load_config(tutorial, ["run.max_epoch=2", "model.vit_ckpt_layer=7"])
    assert config.run.max_epoch == 2  # option over run file
    assert config.model.vit_ckpt_layer == 7  # option over model default
    assert config.model.load_finetuned is False  # run file over model default
    assert config.model.image_size == 384  # model default


def test_the_model_type_given_by_an_option_chooses_the_defaults(tutorial):
    config = load_config(tutorial, ["model.model_type=base_coco"])
    assert config.model.vit_type == "base"
    assert "model_base_caption" in config.model.pretrained


def test_processors_take_image_size_and_prompt_from_the_model(tutorial):
    config = load_config(tutorial, ["model.image_size=224"])
    processors = config.datasets["coco_caption"].vis_processor
    assert processors["train"]["image_size"] == processors["eval"]["image_size"] == 224


def test_a_processor_that_disagrees_with_the_model_is_refused(tutorial):
    option = "datasets.coco_caption.vis_processor.eval.image_size=224"
    with pytest.raises(ConfigError, match=r"image_size is 224 but model.image_size is 384"):
        load_config(tutorial, [option])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("run.int_lr=1", r"--options: run.int_lr is not a key of run; did you mean init_lr"),
        ("run.init_lr=fast", r"--options: run.init_lr: expected a number, found 'fast'"),
        ("run.batch_size_train=0", r"run.batch_size_train: must be at least 1, found 0"),
        ("run.amp=fp8", r"run.amp: expected .*fp16"),
        ("run.task=captoning", r"run.task: No task is called 'captoning'. Did you mean captioning"),
        ("run.lr_sched=cosine", r"run.lr_sched: No lr_scheduler is called 'cosine'"),
        ("run.runner=runner_bas", r"Did you mean runner_base"),
        ("model.arch=blip_captoin", r"No model is called 'blip_captoin'. Did you mean blip_caption"),
        ("model.model_type=larg", r"has no type 'larg'. Did you mean large"),
        ("model.vit_typ=base", r"model.vit_typ is not a key of model; did you mean vit_type"),
        ("datasets.coco_captio={}", r"No dataset builder is called 'coco_captio'. Did you mean coco_caption"),
        ("datasets.coco_caption.imges=x", r"datasets.coco_caption.imges is not a key"),
        (
            "datasets.coco_caption.vis_processor.train.name=blip_image_trai",
            r"train.name: No processor is called 'blip_image_trai'. Did you mean blip_image_train",
        ),
        ("datasets.coco_caption.vis_processor.train.min_scal=1", r"min_scal is not a key"),
        ("modl.arch=x", r"'modl' is not a section of a config. Did you mean model"),
        ("run.metrics=[BLUE]", r"run.metrics: .*BLEU"),
        ("run.seed=${model.nowhere}", r"run.seed"),
        ("max_epoch", r"'max_epoch' is not of the form key=value"),
    ],
)
def test_a_mistake_is_one_clear_message(tutorial, option, message):
    with pytest.raises(ConfigError, match=message):
        load_config(tutorial, [option])


def test_a_mistake_in_the_file_names_the_file(tutorial):
    tutorial.write_text(TUTORIAL.replace("max_epoch: 5", "max_epochs: 5"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"caption_coco_large_ft.yaml: run.max_epochs .* max_epoch"):
        load_config(tutorial)


def test_all_mistakes_are_named_at_once(tutorial):
    with pytest.raises(ConfigError) as caught:
        load_config(tutorial, ["run.int_lr=1", "model.vit_typ=base", "run.max_epoch=many"])
    assert all(key in str(caught.value) for key in ("run.int_lr", "model.vit_typ", "run.max_epoch"))


def test_a_missing_file_names_the_nearest(tutorial):
    with pytest.raises(ConfigError, match=r"Did you mean .*caption_coco_large_ft\.yaml"):
        load_config(tutorial.with_name("caption_coco_large.yaml"))


def test_broken_yaml_is_named(tutorial):
    tutorial.write_text("model: [", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not valid yaml"):
        load_config(tutorial)


def test_a_saved_config_reads_back_the_same(tutorial, tmp_path):
    config = load_config(tutorial, ["run.max_epoch=2"])
    write_saved_config(config.sections, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml").sections == config.sections


PROJECTS = Path(__file__).parents[2] / "projects" / "blip"
LOOPS = {*PROJECTS.rglob("bootstrap_*.yaml"), *PROJECTS.rglob("ablation_*.yaml")}


@pytest.mark.parametrize("path", sorted(set(PROJECTS.rglob("*.yaml")) - LOOPS), ids=lambda path: path.stem)
def test_every_project_file_is_valid(path):
    load_config(path)
