"""Which settings of a run may change when it is resumed."""

from __future__ import annotations

from dataclasses import fields

import pytest

from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.config.schema import ConfigError
from lavis_lite.runners.changes import FATES, Fate, accepted_changes, fate_of, is_of_training

CONFIG = {
    "imports": ["parts.py"],
    "model": {"arch": "blip_caption", "max_txt_len": 40, "vit_grad_ckpt": False, "med_config": {"layers": 2}},
    "datasets": {"caption_json": {"images": "photos", "vis_processor": {"train": {"name": "a"}}}},
    "preprocess": {},
    "run": {"task": "captioning", "init_lr": 1e-4, "seed": 1, "lr_scale": {}, "output_dir": "output/a"},
}


def changed(**values):
    """Return `CONFIG` with values at paths, as ``run__init_lr=1``."""
    import copy

    config = copy.deepcopy(CONFIG)
    for path, value in values.items():
        *sections, key = path.split("__")
        section = config
        for name in sections:
            section = section[name]
        section[key] = value
    return config


def accept(now, was=CONFIG, new_folder=False):
    return accepted_changes(was, now, checkpoint="out/checkpoint_00000005.pth", new_folder=new_folder)


def test_settings_of_how_to_train_carry_on_and_are_named():
    changes = accept(changed(run__init_lr=1e-5, model__vit_grad_ckpt=True))
    assert [str(change) for change in changes] == [
        "model.vit_grad_ckpt was False and is now True",
        "run.init_lr was 0.0001 and is now 1e-05",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model__max_txt_len": 20}, "model.max_txt_len was 40 and is now 20"),
        ({"model__med_config": {}}, "model.med_config.layers was 2 and is now not set"),
        ({"model__med_config": {"layers": 2, "heads": 4}}, "model.med_config.heads was not set and is now 4"),
        ({"run__task": "vqa"}, "run.task was 'captioning' and is now 'vqa'"),
        (
            {"run__lr_scale": {"visual_encoder": 0.1}},
            "run.lr_scale.visual_encoder was not set and is now 0.1",
        ),
    ],
)
def test_what_the_weights_or_the_optimizer_do_not_fit_is_refused_everywhere(change, said):
    for new_folder in (False, True):
        with pytest.raises(ConfigError, match="cannot be resumed with these settings") as refused:
            accept(changed(**change), new_folder=new_folder)
        assert said in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        {"run__seed": 2},
        {"datasets__caption_json__images": "others"},
        {"datasets__caption_json__vis_processor": {"train": {"name": "b"}}},
        {"datasets__image_folder": {"images": "more"}},
        {"datasets": {}},
    ],
)
def test_other_data_needs_another_folder(change):
    with pytest.raises(ConfigError, match=r"run\.resume_ckpt_path=out/checkpoint_00000005\.pth continues"):
        accept(changed(**change))
    assert accept(changed(**change), new_folder=True)


def test_every_refused_setting_is_named_at_once():
    with pytest.raises(ConfigError, match=r"max_txt_len was 40 and is now 20; run.task was 'captioning'"):
        accept(changed(model__max_txt_len=20, run__task="vqa", run__init_lr=1.0))


def test_places_and_own_modules_are_not_compared():
    assert accept(changed(imports=["elsewhere/parts.py"], run__output_dir="output/b")) == []


def test_a_field_that_an_older_checkpoint_lacks_is_no_change():
    was = changed()
    del was["model"]["max_txt_len"], was["run"]["seed"], was["datasets"]["caption_json"]["images"]
    assert accept(CONFIG, was) == []


def test_the_fates_name_settings_that_exist():
    known = {field.name for field in fields(RunConfig)}
    named = {path.removeprefix("run.") for path in FATES if path.startswith("run.")}
    assert named <= known


def test_the_keys_of_a_task_carry_on_and_an_unknown_section_does_not():
    assert fate_of("run.num_beams") is Fate.CARRY_ON
    assert fate_of("run.lr_scale.visual_encoder") is Fate.REFUSE
    assert fate_of("something.else") is Fate.REFUSE


def test_with_nothing_left_to_train_the_settings_of_evaluation_still_count():
    keys = (
        "run.init_lr",
        "run.max_epoch",
        "run.test_splits",
        "run.num_beams",
        "run.seed",
        "datasets.x.images",
    )
    assert [is_of_training(key) for key in keys] == [True, True, False, False, False, False]
