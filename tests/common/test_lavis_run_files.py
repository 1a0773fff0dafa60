"""LAVIS's 19 run files for BLIP load: what each of them sets, in a table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lavis_lite.common.config.layering import load_config
from lavis_lite.common.registry import registry

EVERYWHERE = {"num_workers": 4, "seed": 42, "device": "cuda", "world_size": 1, "dist_url": "env://"}
EVERYWHERE |= {"distributed": True}
COSINE = {"lr_sched": "linear_warmup_cosine_lr", "min_lr": 0, "weight_decay": 0.05, "train_splits": ["train"]}
CAPTIONS = {"task": "captioning", "max_len": 20, "min_len": 5, "num_beams": 3, "batch_size_eval": 64}
ANSWERS = {"task": "vqa", "max_len": 10, "min_len": 1, "num_beams": 3, "num_ans_candidates": 128}
ANSWERS |= {"inference_method": "rank"}
RETRIEVAL = {"task": "retrieval", "use_dist_eval_sampler": False, "batch_size_train": 32}
TRAIN, EVAL, BOTH = ("train",), ("eval",), ("train", "eval")


def data(text: str, splits: tuple[str, ...], image_size: int | None = None, **more: Any) -> dict[str, Any]:
    """Return the section of a data set with BLIP's image processors and a text processor."""
    size = {} if image_size is None else {"image_size": image_size}
    images = {split: {"name": f"blip_image_{split}", **size} for split in splits}
    return {"vis_processor": images, "text_processor": {split: {"name": text} for split in splits}, **more}


def with_prompt(section: dict[str, Any], split: str) -> dict[str, Any]:
    section["text_processor"][split]["prompt"] = "a picture of "
    return section


def captions() -> dict[str, Any]:
    return {"coco_caption": with_prompt(data("blip_caption", BOTH), "train")}


def questions(name: str, splits: tuple[str, ...], **more: Any) -> dict[str, Any]:
    return {name: data("blip_question", splits, 480, **more)}


# name -> the sections model, datasets and run
FILES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "caption_coco_ft": (
        {"arch": "blip_caption", "model_type": "base_coco", "load_finetuned": False},
        captions(),
        {**CAPTIONS, **COSINE, "init_lr": "1e-5", "max_epoch": 5, "batch_size_train": 32},
    ),
    "caption_coco_large_ft": (
        {"arch": "blip_caption", "model_type": "large_coco", "load_finetuned": False},
        captions(),
        {**CAPTIONS, **COSINE, "init_lr": "2e-6", "max_epoch": 5, "batch_size_train": 16, "amp": False},
    ),
    "coco_cap_ft_iter": (
        {"arch": "blip_caption", "model_type": "large"},
        captions(),
        {
            **{**CAPTIONS, **COSINE, "runner": "runner_iter", "max_iters": "2e4"},
            **{"iters_per_inner_epoch": "2e3", "init_lr": "2e-6", "valid_splits": ["val", "test"]},
        },
    ),
    "retrieval_coco_ft": (
        {
            **{"arch": "blip_retrieval", "model_type": "coco", "load_finetuned": False, "queue_size": 57600},
            **{"alpha": 0.4, "negative_all_rank": True},
        },
        {"coco_retrieval": data("blip_caption", BOTH, 384)},
        {
            **{**RETRIEVAL, **COSINE, "init_lr": "2e-5", "weight_decay": 0.04, "max_epoch": 6, "k_test": 256},
            **{"valid_splits": ["val", "test"]},
        },
    ),
    "retrieval_flickr_ft": (
        {
            **{"arch": "blip_retrieval", "model_type": "flickr", "load_finetuned": False},
            **{"queue_size": 57600, "negative_all_rank": False},
        },
        {"flickr30k": data("blip_caption", BOTH, 384)},
        {
            **{**RETRIEVAL, **COSINE, "init_lr": "1e-5", "max_epoch": 6, "k_test": 128},
            **{"valid_splits": ["val", "test"]},
        },
    ),
    "vqav2_ft": (
        {"arch": "blip_vqa", "model_type": "vqav2", "load_finetuned": False, "image_size": 480},
        {**questions("coco_vqa", BOTH), **questions("vg_vqa", TRAIN)},
        {**ANSWERS, **COSINE, "init_lr": "2e-5", "max_epoch": 10, "batch_size_train": 16},
    ),
    "okvqa_ft": (
        {"arch": "blip_vqa", "model_type": "okvqa", "load_finetuned": False, "image_size": 480},
        questions("ok_vqa", BOTH),
        {**ANSWERS, **COSINE, "init_lr": "3e-5", "min_lr": "1e-5", "max_epoch": 7, "num_beams": 256},
    ),
    "aokvqa_ft": (
        {"arch": "blip_vqa", "model_type": "aokvqa", "load_finetuned": False, "image_size": 480},
        questions("aok_vqa", BOTH),
        {
            **{**ANSWERS, **COSINE, "task": "aok_vqa", "init_lr": "2e-5", "min_lr": "1e-5", "max_epoch": 7},
            **{"num_beams": 256, "valid_splits": ["val"], "test_splits": ["test"]},
        },
    ),
    "nlvr_ft": (
        {"arch": "blip_nlvr", "model_type": "nlvr", "load_finetuned": False},
        {"nlvr": data("blip_caption", BOTH, 384)},
        {**COSINE, "task": "multimodal_classification", "init_lr": "2.5e-5", "max_epoch": 15},
    ),
    "pretrain_14m": (
        {
            **{"arch": "blip_pretrain", "model_type": "base", "load_pretrained": False},
            **{"queue_size": 57600, "alpha": 0.4},
        },
        {
            name: data("blip_caption", TRAIN, 224)
            for name in (
                *("coco_caption", "vg_caption", "sbu_caption"),
                *("conceptual_caption_3m", "conceptual_caption_12m"),
            )
        },
        {
            **{"task": "image_text_pretrain", "lr_sched": "linear_warmup_step_lr", "init_lr": "3e-4"},
            **{"min_lr": "1e-6", "warmup_lr": "1e-6", "lr_decay_rate": 0.9, "weight_decay": 0.05},
            **{"max_epoch": 20, "batch_size_train": 75, "warmup_steps": 3000, "train_splits": ["train"]},
        },
    ),
    "caption_coco_eval": (
        {"arch": "blip_caption", "model_type": "base_coco"},
        {"coco_caption": data("blip_caption", EVAL)},
        {**CAPTIONS, "evaluate": True},
    ),
    "caption_coco_eval_large": (
        {"arch": "blip_caption", "model_type": "large_coco"},
        {"coco_caption": data("blip_caption", EVAL)},
        {**CAPTIONS, "evaluate": True},
    ),
    "nocaps_eval": (
        {
            **{"arch": "blip_caption", "model_type": "base_coco"},
            "pretrained": "https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/"
            "model_base_caption_capfilt_large.pth",
        },
        {"nocaps": with_prompt(data("blip_caption", EVAL, 384), "eval")},
        {**CAPTIONS, "evaluate": True, "test_splits": ["val", "test"], "report_metric": False},
    ),
    "ret_coco_eval": (
        {"arch": "blip_retrieval", "model_type": "coco"},
        {"coco_retrieval": data("blip_caption", BOTH, 384)},
        {**RETRIEVAL, "evaluate": True, "k_test": 256},
    ),
    "ret_flickr_eval": (
        {"arch": "blip_retrieval", "model_type": "flickr"},
        {"flickr30k": data("blip_caption", EVAL, 384)},
        {**RETRIEVAL, "evaluate": True, "k_test": 128},
    ),
    "vqav2_eval": (
        {"arch": "blip_vqa", "model_type": "vqav2", "image_size": 480},
        questions("coco_vqa", EVAL, type="eval"),
        {**ANSWERS, "evaluate": False, "test_splits": ["val"]},
    ),
    "okvqa_eval": (
        {"arch": "blip_vqa", "model_type": "okvqa", "image_size": 480},
        questions("ok_vqa", EVAL),
        {**ANSWERS, "evaluate": True},
    ),
    "aokvqa_eval": (
        {"arch": "blip_vqa", "model_type": "aokvqa", "image_size": 480},
        questions("aok_vqa", EVAL),
        {**ANSWERS, "task": "aok_vqa", "evaluate": True, "test_splits": ["val", "test"]},
    ),
    "nlvr_eval": (
        {"arch": "blip_nlvr", "model_type": "nlvr"},
        {"nlvr": data("blip_caption", EVAL, 384)},
        {"task": "multimodal_classification", "evaluate": True, "test_splits": ["val", "test"]},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_run_file_of_lavis_loads_and_its_data_sets_have_the_splits_to_test(name, tmp_path: Path):
    model, datasets, run = FILES[name]
    text = yaml.safe_dump({"model": model, "datasets": datasets, "run": {**EVERYWHERE, **run}})
    path = tmp_path / f"{name}.yaml"
    path.write_text(re.sub(r"'([\d.]+e-?\d)'", r"\1", text), encoding="utf-8")  # there 1e-5 is not quoted
    config = load_config(path)
    assert config.arch == model["arch"]
    assert config.run.seed == 42
    if "test_splits" in run:
        builders = [registry.get_builder_class(data)(settings) for data, settings in config.datasets.items()]
        assert set(run["test_splits"]) <= {split for builder in builders for split in builder.splits()}


def test_there_are_nineteen():
    assert len(FILES) == 19
