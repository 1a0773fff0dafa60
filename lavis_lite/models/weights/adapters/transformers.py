"""Names of BLIP's weights in transformers, and in ours. The tensors stay unchanged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

Kind = Literal["caption", "vqa", "itm"]
StateDict = dict[str, Tensor]

# The transformers class of each kind of model, and its parts. The names of the text models agree; there is no
# place for `temp`, momentum copies and queues.
CLASS_NAMES: Mapping[Kind, str] = {
    "caption": "BlipForConditionalGeneration",
    "vqa": "BlipForQuestionAnswering",
    "itm": "BlipForImageTextRetrieval",
}
PARTS: Mapping[Kind, tuple[str, ...]] = {
    "caption": ("visual_encoder", "text_decoder"),
    "vqa": ("visual_encoder", "text_encoder", "text_decoder"),
    "itm": ("visual_encoder", "text_encoder", "vision_proj", "text_proj", "itm_head"),
}

# Beginnings of names, ours -> theirs; N stands for the number of a block. The first match counts.
_BLOCK, _LAYER = "visual_encoder.blocks.N.", "vision_model.encoder.layers.N."
_VISION = {
    "visual_encoder.cls_token": "vision_model.embeddings.class_embedding",
    "visual_encoder.pos_embed": "vision_model.embeddings.position_embedding",
    "visual_encoder.patch_embed.proj.": "vision_model.embeddings.patch_embedding.",
    "visual_encoder.norm.": "vision_model.post_layernorm.",
    _BLOCK + "norm1.": _LAYER + "layer_norm1.",
    _BLOCK + "norm2.": _LAYER + "layer_norm2.",
    _BLOCK + "attn.qkv.": _LAYER + "self_attn.qkv.",
    _BLOCK + "attn.proj.": _LAYER + "self_attn.projection.",
    _BLOCK: _LAYER,
}
# The head's projection is the embedding matrix; safetensors files hold neither it nor its bias.
_HEAD = "text_decoder.cls.predictions."
TIED: Mapping[str, str] = {
    _HEAD + "decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    _HEAD + "decoder.bias": _HEAD + "bias",
}


def to_transformers(state_dict: Mapping[str, Tensor], kind: Kind | None = None) -> StateDict:
    """Return our weights under the names of the transformers class of this kind, without other parts.

    Args:
        kind: None to infer it from the weights.

    Raises:
        ValueError: the weights lack a part of that kind, or may be of several kinds.
    """
    kind = kind or kind_of(state_dict)
    parts = PARTS[kind]
    absent = sorted(set(parts) - _parts_in(state_dict))
    if absent:
        raise ValueError(
            f"kind {kind!r} is made of {', '.join(parts)}, but the weights have no {' and no '.join(absent)}."
        )
    return {
        _rename(key, _VISION): tensor
        for key, tensor in state_dict.items()
        if key.split(".", 1)[0] in parts and not key.endswith("position_ids")
    }


def from_transformers(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Return weights of transformers under our names.

    Entries that its files leave out are restored: the tied head, `position_ids`.
    """
    names = {theirs: ours for ours, theirs in _VISION.items()}
    ours = {_rename(key, names): tensor for key, tensor in state_dict.items()}
    for tied, original in TIED.items():
        if original in ours:
            ours.setdefault(tied, ours[original])
    for key in [key for key in ours if key.endswith(".position_embeddings.weight")]:
        position_ids = key.replace(".position_embeddings.weight", ".position_ids")
        ours.setdefault(position_ids, torch.arange(len(ours[key]))[None])
    return ours


def kind_of(state_dict: Mapping[str, Tensor]) -> Kind:
    """Return the kind of model that has these weights (under our names).

    Raises:
        ValueError: no kind has them, or several do (a pretrained model has all parts).
    """
    present = _parts_in(state_dict)
    if {"text_decoder", "itm_head"} <= present:
        raise ValueError(
            "the weights have the parts of several kinds of model (those of pretraining do); "
            f"say which: kind = {', '.join(map(repr, get_args(Kind)))}."
        )
    kinds: tuple[Kind, ...] = ("vqa", "caption", "itm")  # "vqa" has all the parts of "caption"
    for kind in kinds:
        if present.issuperset(PARTS[kind]):
            return kind
    needs = "; ".join(f"{name} needs {', '.join(PARTS[kind])}" for kind, name in CLASS_NAMES.items())
    raise ValueError(
        f"transformers has no class for weights of {', '.join(sorted(present)) or 'no parts'}; {needs}."
    )


def _parts_in(state_dict: Mapping[str, Tensor]) -> set[str]:
    return {key.split(".", 1)[0] for key in state_dict}


def _rename(key: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        match = re.match(re.escape(old).replace("N", r"(\d+)"), key)
        if match:
            return new.replace("N", match[1] if "N" in old else "N") + key[match.end() :]
    return key
