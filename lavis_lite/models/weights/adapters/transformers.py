"""Names of BLIP's weights in transformers, and in ours. Tensors pass through untouched."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

Kind = Literal["caption", "vqa", "itm"]
StateDict = dict[str, Tensor]

# What transformers calls each kind of model, and the parts of ours that it has. The names of the
# text models agree; `temp`, momentum copies and queues have no place there.
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

_VISION = {
    "visual_encoder.cls_token": "vision_model.embeddings.class_embedding",
    "visual_encoder.pos_embed": "vision_model.embeddings.position_embedding",
    "visual_encoder.patch_embed.proj.": "vision_model.embeddings.patch_embedding.",
    "visual_encoder.norm.": "vision_model.post_layernorm.",
    "visual_encoder.blocks.": "vision_model.encoder.layers.",
}
_IN_A_BLOCK = {
    "norm1.": "layer_norm1.",
    "norm2.": "layer_norm2.",
    "attn.qkv.": "self_attn.qkv.",
    "attn.proj.": "self_attn.projection.",
}
# The head's projection is the embedding matrix; safetensors files hold neither it nor its bias.
_HEAD = "text_decoder.cls.predictions."
TIED: Mapping[str, str] = {
    _HEAD + "decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    _HEAD + "decoder.bias": _HEAD + "bias",
}


def to_transformers(state_dict: Mapping[str, Tensor], kind: Kind | None = None) -> StateDict:
    """Return our weights under the names of the transformers class of this kind.

    Parts that the class has no place for are left out.

    Args:
        kind: None for the only one that the weights can be.

    Raises:
        ValueError: the weights lack a part of that kind, or may be of several kinds.
    """
    parts = PARTS[kind if kind is not None else kind_of(state_dict)]
    absent = sorted(set(parts) - _parts_in(state_dict))
    if absent:
        raise ValueError(
            f"kind {kind!r} is made of {', '.join(parts)}, but the weights have no {' and no '.join(absent)}."
        )
    return {
        _rename(key, _VISION, _IN_A_BLOCK): tensor
        for key, tensor in state_dict.items()
        if key.split(".", 1)[0] in parts and not key.endswith("position_ids")
    }


def from_transformers(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Return weights from transformers under our names.

    What its files leave out because it can be derived is there again: the tied head, `position_ids`.
    """
    vision = {theirs: ours for ours, theirs in _VISION.items()}
    in_a_block = {theirs: ours for ours, theirs in _IN_A_BLOCK.items()}
    ours = {_rename(key, vision, in_a_block): tensor for key, tensor in state_dict.items()}
    for tied, original in TIED.items():
        if tied not in ours and original in ours:
            ours[tied] = ours[original]
    for key in [key for key in ours if key.endswith(".position_embeddings.weight")]:
        position_ids = key.replace(".position_embeddings.weight", ".position_ids")
        ours.setdefault(position_ids, torch.arange(len(ours[key]))[None])
    return ours


def kind_of(state_dict: Mapping[str, Tensor]) -> Kind:
    """Return the kind of model that weights under our names are of.

    Raises:
        ValueError: of none, or of several (a pretrained model has all parts).
    """
    present = _parts_in(state_dict)
    if "text_decoder" in present and "itm_head" in present:
        raise ValueError(
            "the weights have the parts of several kinds of model (those of pretraining do); "
            f"say which: kind = {', '.join(map(repr, get_args(Kind)))}."
        )
    for kind in ("vqa", "caption", "itm"):
        if present.issuperset(PARTS[kind]):
            return kind
    raise ValueError(
        f"transformers has no class for weights of {', '.join(sorted(present)) or 'no parts'}; "
        + "; ".join(f"{name} needs {', '.join(PARTS[kind])}" for kind, name in CLASS_NAMES.items())
        + "."
    )


def _parts_in(state_dict: Mapping[str, Tensor]) -> Collection[str]:
    return {key.split(".", 1)[0] for key in state_dict}


def _rename(key: str, names: Mapping[str, str], in_a_block: Mapping[str, str]) -> str:
    for old, new in names.items():
        if not key.startswith(old):
            continue
        rest = key.removeprefix(old)
        match = re.fullmatch(r"(\d+\.)(.*)", rest)
        if match is None:
            return new + rest
        return new + match[1] + _rename(match[2], in_a_block, {})
    return key
