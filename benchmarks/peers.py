"""Building the peer of a model: transformers' class of the same sizes, with the same weights."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import BlipConfig

from lavis_lite.models.blip_models.blip import BlipBase
from lavis_lite.models.weights.adapters.transformers import to_transformers


def build_peer(peer_class: type, model: BlipBase, **settings: Any) -> nn.Module:
    """Return a `peer_class` that computes what `model` does."""
    text, vision = model.text_config, model.config.vision_sizes
    config = BlipConfig(
        text_config={
            "vocab_size": text.vocab_size,
            "hidden_size": text.hidden_size,
            "encoder_hidden_size": text.encoder_width,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "bos_token_id": text.vocab_size - 2,
            "eos_token_id": 102,
            "sep_token_id": 102,
        },
        vision_config={
            "hidden_size": vision.embed_dim,
            "intermediate_size": 4 * vision.embed_dim,
            "num_hidden_layers": vision.depth,
            "num_attention_heads": vision.num_heads,
            "image_size": model.config.image_size,
            "patch_size": vision.patch_size,
            "layer_norm_eps": model.config.vit_layer_norm_epsilon,
        },
        **settings,
    )
    peer = peer_class(config).eval()
    missing, unexpected = peer.load_state_dict(to_transformers(model.state_dict()), strict=False)
    strangers = [key for key in missing if "position_ids" not in key]
    assert not unexpected and not strangers, (unexpected, strangers)
    return peer
