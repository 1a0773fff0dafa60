"""Explanations for weights that do not fit: another architecture, another size, another vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from lavis_lite.models.layers.vit import NAMED_SIZES

# The parts of each model besides the vision transformer, momentum copies, queues and the temperature.
_ARCHES: Mapping[frozenset[str], str] = {
    frozenset({"text_decoder"}): "blip_caption",
    frozenset({"text_encoder", "text_decoder"}): "blip_vqa",
    frozenset({"text_encoder", "vision_proj", "text_proj"}): "blip_feature_extractor",
    frozenset({"text_encoder", "vision_proj", "text_proj", "itm_head"}): "blip_image_text_matching",
    frozenset({"text_encoder", "text_decoder", "vision_proj", "text_proj", "itm_head"}): "blip_pretrain",
    frozenset({"text_encoder", "cls_head"}): "blip_classification",
}
_AUXILIARY = re.compile(r"temp|queue_ptr|ptr_queue|(image|text|idx)_queue|.*_m")
# Patterns in names -> the program or model that has them.
_FOREIGN = (
    (r"\.lora_[AB]\b", "an adapter of PEFT (LoRA); merge it into its model and save that"),
    (
        r"^(Qformer|query_tokens|ln_vision|opt_model|t5_model|llm_model)\b",
        "BLIP-2 or InstructBLIP, not of BLIP",
    ),
    (r"^(qformer|language_model|language_projection)\b", "transformers' BLIP-2, not of BLIP"),
    (r"\.(SCB|absmax|quant_map|qweight|weight_format)$", "a quantized model; save it without quantization"),
    (
        r"^vision_model\.",
        "a model of transformers; name the folder that holds this file and its config.json",
    ),
    (r"^visual\.|^(text_projection|logit_scale)$", "CLIP, not of BLIP"),
)
_PATCH_KERNEL, _WORD_EMBEDDINGS = (
    "visual_encoder.patch_embed.proj.weight",
    "embeddings.word_embeddings.weight",
)


def arch_of(checkpoint: Mapping[str, Any]) -> str | None:
    """Return the registered name of the model that made a checkpoint, or None if unknown.

    Args:
        checkpoint: weights at "model"; the checkpoint of a run holds the name of its model.
    """
    config = checkpoint.get("config")
    model = config.get("model") if isinstance(config, Mapping) else None
    arch = model.get("arch") if isinstance(model, Mapping) else None
    if isinstance(arch, str):
        return arch
    weights = checkpoint["model"]
    parts = _parts(weights)
    if "visual_encoder" not in parts:
        return None
    if _has_two_images(weights):
        return "blip_nlvr"
    arch = _ARCHES.get(parts - {"visual_encoder"})
    if arch == "blip_image_text_matching" and any(key.startswith("text_encoder_m.") for key in weights):
        return "blip_retrieval"
    return arch


def _parts(weights: Iterable[str]) -> frozenset[str]:
    return frozenset(part for key in weights if not _AUXILIARY.fullmatch(part := key.split(".", 1)[0]))


def _has_two_images(weights: Iterable[str]) -> bool:
    """Return whether the cross-attention is doubled, as in NLVR."""
    return any(".crossattention.self0." in key for key in weights)


def explain_misfit(checkpoint: Mapping[str, Any], own: Mapping[str, Tensor], own_arch: str) -> str:
    """Return one sentence about why weights do not fit a model, or "" if there is no simple reason.

    Args:
        checkpoint: weights at "model".
        own: the model's state dict.
        own_arch: the model's registered name.
    """
    weights = checkpoint["model"]
    for pattern, name in _FOREIGN:
        if any(re.search(pattern, key) for key in weights):
            return f"it holds the weights of {name}."
    arch = arch_of(checkpoint)
    has_all_parts = _parts(own) <= _parts(weights) and _has_two_images(own) == _has_two_images(weights)
    if arch is not None and arch != own_arch and not has_all_parts:
        return f"it holds the weights of {arch}, not of {own_arch}."
    if weights.keys() & own.keys():
        return _explain_size(weights, own) or _explain_prefix(weights, own)
    return (
        _explain_prefix(weights, own) or f"it holds no weight of {own_arch}, but {next(iter(weights))}, ..."
    )


def _explain_size(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    size, own_size = _vision_size(weights), _vision_size(own)
    if size and own_size and size != own_size:
        return f"its vision transformer is {size}, the model's is {own_size}; choose the type of that size."
    for key in own:
        if key.endswith(_WORD_EMBEDDINGS) and key in weights and len(weights[key]) != len(own[key]):
            return (
                f"its vocabulary has {len(weights[key])} tokens, the model's tokenizer {len(own[key])}; "
                "set model.tokenizer to the one that it was trained with."
            )
    return ""


def _vision_size(weights: Mapping[str, Tensor]) -> str:
    kernel = weights.get(_PATCH_KERNEL)
    if kernel is None or kernel.dim() != 4:
        return ""
    blocks = (re.match(r"visual_encoder\.blocks\.(\d+)\.", key) for key in weights)
    depth = 1 + max((int(match[1]) for match in blocks if match), default=-1)
    width, patch = len(kernel), kernel.shape[-1]
    for name, sizes in NAMED_SIZES.items():
        if (sizes.embed_dim, sizes.depth, sizes.patch_size) == (width, depth, patch):
            return f"{name!r} ({depth} blocks of width {width})"
    return f"of {depth} blocks of width {width} with patches of {patch} pixels"


def _explain_prefix(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Name the prefix under which most of the model's weights are stored beside others."""
    for prefix in {key.split(".", 1)[0] + "." for key in weights if "." in key}:
        inside = {key.removeprefix(prefix) for key in weights if key.startswith(prefix)}
        if len(own.keys() & inside) > len(own) // 2:
            return (
                f"the weights that fit are named {prefix}*, among {len(weights) - len(inside)} others; save "
                f"only those, with {prefix!r} removed from their names."
            )
    return ""
