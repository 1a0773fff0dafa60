"""Where the published checkpoints differ from each other and from what a model needs.

Our names of weights are those of Salesforce's files. Each function here bridges one documented
difference, on state dicts alone; loading stays strict about everything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

StateDict = dict[str, Tensor]
QUEUES = ("image_queue", "text_queue", "idx_queue", "queue_ptr")


def fit_queues(state_dict: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> StateDict:
    """Return `state_dict` with the queues under our names, and without them if any does not fit.

    BLIP's retrieval files call the pointer ``ptr_queue``, LAVIS's ``queue_ptr``; pretraining has no
    ``idx_queue``, without which the others are of no use to retrieval.

    Args:
        own: the state dict of the model.
    """
    state_dict = dict(state_dict)
    if "ptr_queue" in state_dict:
        state_dict["queue_ptr"] = state_dict.pop("ptr_queue")
    queues = [name for name in QUEUES if name in own]
    fit = all(name in state_dict and state_dict[name].shape == own[name].shape for name in queues)
    if not fit:
        for name in QUEUES:
            state_dict.pop(name, None)
    return state_dict


def momentum_from_online(state_dict: Mapping[str, Tensor], parts: Sequence[str]) -> StateDict:
    """Return `state_dict` with a momentum copy ``<part>_m`` of each part that has none."""
    state_dict = dict(state_dict)
    for part in parts:
        if any(key.startswith(f"{part}_m.") for key in state_dict):
            continue
        for key in [key for key in state_dict if key.startswith(f"{part}.")]:
            state_dict[f"{part}_m.{key.removeprefix(part + '.')}"] = state_dict[key]
    return state_dict


def double_cross_attention(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Return `state_dict` with each image cross-attention given to both images of a pair (NLVR).

    ``self.*`` becomes ``self0.*`` and ``self1.*``, ``output.dense`` becomes ``dense0`` and ``dense1``.
    """
    doubled = {}
    for key, tensor in state_dict.items():
        match = re.fullmatch(r"(.*\.crossattention)\.(self|output\.dense)\.(.*)", key)
        if match is None:
            doubled[key] = tensor
            continue
        for number in (0, 1):
            doubled[f"{match[1]}.{match[2]}{number}.{match[3]}"] = tensor
    return doubled


def encoder_from_decoder(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Return `state_dict` with a text encoder made of its decoder, if it has only that.

    Both share all but self-attention in pretraining, so a captioner's file can start an encoder.
    """
    state_dict = dict(state_dict)
    if any(key.startswith("text_encoder.") for key in state_dict):
        return state_dict
    prefix = "text_decoder.bert."
    for key in [key for key in state_dict if key.startswith(prefix)]:
        state_dict["text_encoder." + key.removeprefix(prefix)] = state_dict[key]
    return state_dict


def to_salesforce(state_dict: Mapping[str, Tensor], pointer: str = "queue_ptr") -> dict[str, StateDict]:
    """Return a checkpoint in Salesforce's layout, as their ``.pth`` files hold it.

    Args:
        pointer: "ptr_queue" is what BLIP's own retrieval code reads, "queue_ptr" LAVIS.
    """
    renamed = {pointer if key == "queue_ptr" else key: tensor for key, tensor in state_dict.items()}
    return {"model": renamed}
