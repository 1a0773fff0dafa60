"""Names of BLIP's weights in transformers, and in ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# Patterns of our keys, and what transformers calls the same weights. The text models agree.
_VISION_NAMES: tuple[tuple[str, str], ...] = (
    (r"visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (r"visual_encoder\.blocks\.(\d+)\.norm1\.", r"vision_model.encoder.layers.\1.layer_norm1."),
    (r"visual_encoder\.blocks\.(\d+)\.norm2\.", r"vision_model.encoder.layers.\1.layer_norm2."),
    (r"visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (r"visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (r"visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision_model.encoder.layers.\1.mlp."),
)


def to_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a captioner's weights under the names of transformers' `BlipForConditionalGeneration`."""
    return {_rename(key): tensor for key, tensor in state_dict.items() if not key.endswith("position_ids")}


def _rename(key: str) -> str:
    for pattern, replacement in _VISION_NAMES:
        renamed, count = re.subn("^" + pattern, replacement, key)
        if count:
            return renamed
    return key
