"""Differences between Salesforce's published checkpoints, and to what a model needs.

Our names of weights are those of Salesforce's files. Each function converts one known difference in a state
dict; loading stays strict about everything else.
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
    renamed = {"queue_ptr" if key == "ptr_queue" else key: tensor for key, tensor in state_dict.items()}
    if all(name in renamed and renamed[name].shape == own[name].shape for name in QUEUES if name in own):
        return renamed
    return {key: tensor for key, tensor in renamed.items() if key not in QUEUES}


def momentum_from_online(state_dict: Mapping[str, Tensor], parts: Sequence[str]) -> StateDict:
    """Return `state_dict` with a momentum copy ``<part>_m`` of each part that has none."""
    complete = dict(state_dict)
    for part in parts:
        if not any(key.startswith(f"{part}_m.") for key in state_dict):
            complete |= _copied(state_dict, f"{part}.", f"{part}_m.")
    return complete


def encoder_from_decoder(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Return `state_dict` with a text encoder copied from its decoder, if it has no encoder.

    Both share all but self-attention in pretraining, so that a captioner's file can initialize an encoder.
    """
    if any(key.startswith("text_encoder.") for key in state_dict):
        return dict(state_dict)
    return {**state_dict, **_copied(state_dict, "text_decoder.bert.", "text_encoder.")}


def _copied(state_dict: Mapping[str, Tensor], prefix: str, new_prefix: str) -> StateDict:
    return {
        new_prefix + key.removeprefix(prefix): tensor
        for key, tensor in state_dict.items()
        if key.startswith(prefix)
    }


def double_cross_attention(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Return `state_dict` with each image cross-attention copied for both images of a pair (NLVR).

    ``self.*`` becomes ``self0.*`` and ``self1.*``, ``output.dense`` becomes ``dense0`` and ``dense1``.
    """
    doubled = {}
    for key, tensor in state_dict.items():
        match = re.fullmatch(r"(.*\.crossattention\.(?:self|output\.dense))(\..*)", key)
        for name in (f"{match[1]}0{match[2]}", f"{match[1]}1{match[2]}") if match else (key,):
            doubled[name] = tensor
    return doubled


def to_salesforce(state_dict: Mapping[str, Tensor], pointer: str = "queue_ptr") -> dict[str, StateDict]:
    """Return a checkpoint in the layout of Salesforce's ``.pth`` files.

    Args:
        pointer: name of the queues' pointer: "ptr_queue" for BLIP's retrieval code, "queue_ptr" for LAVIS.
    """
    renamed = {pointer if key == "queue_ptr" else key: tensor for key, tensor in state_dict.items()}
    return {"model": renamed}
