"""What results were made with: weights, data, settings. Equal descriptions give equal results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch.utils.data import Dataset

from lavis_lite.common import distributed
from lavis_lite.common.config.run_config import RunConfig
from lavis_lite.common.results import library_version, settings_digest, state_dict_digest
from lavis_lite.runners.precision import Precision

# Where weights come from is said by their digest; how memory is saved changes no result.
_NOT_OF_THE_RESULT = ("load_finetuned", "finetuned", "load_pretrained", "pretrained")
_NOT_OF_THE_RESULT += ("vit_grad_ckpt", "vit_ckpt_layer")


def describe_evaluation(
    config: RunConfig,
    sections: Mapping[str, Any],
    model: Any,
    datasets: Mapping[str, Sequence[Dataset]],
    precision: Precision,
    step: int | None,
    weights: str | None = None,
) -> dict[str, Any]:
    """Describe an evaluation of `model` on the test splits in plain values, the same on all ranks.

    Args:
        config: the ``run`` section.
        sections: the resolved config.
        model: the whole model, with the weights to test.
        datasets: split -> data sets of that split.
        precision: what the model computes in.
        step: optimizer steps that the weights were trained for, None where nobody knows.
        weights: their digest, computed where it is None.
    """
    of_the_task = {field.name for field in fields(config)} - {field.name for field in fields(RunConfig)}
    used = {
        "model": {key: v for key, v in sections["model"].items() if key not in _NOT_OF_THE_RESULT},
        "datasets": sections["datasets"],
    }
    if weights is None:
        weights = distributed.broadcast_object(
            state_dict_digest(model.state_dict()) if distributed.is_rank_zero() else None
        )
    return {
        "step": step,
        "weights": weights,
        "model": sections["model"]["arch"],
        "data": {
            split: {
                "data_sets": [
                    getattr(dataset, "name", type(dataset).__name__) for dataset in datasets[split]
                ],
                "samples": sum(len(dataset) for dataset in datasets[split]),
            }
            for split in config.test_splits
        },
        "settings": {key: sections["run"][key] for key in sorted(of_the_task)},
        "inference": model.inference_settings(),
        "model_and_data_settings": settings_digest(used),
        "precision": str(precision.dtype or torch.float32).removeprefix("torch."),
        "seed": config.seed,
        "version": library_version(),
    }
