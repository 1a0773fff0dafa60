"""Sizes of the text transformer, as BERT's config files name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from lavis_lite.models.layers.vit import size_errors


@dataclass
class TextConfig:
    """Sizes of the text transformer; the defaults are BERT-base's, as BLIP uses it.

    Attributes:
        vocab_size: None for the size of the tokenizer's vocabulary.
        encoder_width: width of what cross-attention reads; None for that of the vision transformer.
        images_per_text: 2 for NLVR, whose texts describe a pair of images.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    max_position_embeddings: int = 512
    initializer_range: float = 0.02
    vocab_size: int | None = None
    encoder_width: int | None = None
    pad_token_id: int = 0
    hidden_act: Literal["gelu"] = "gelu"
    add_cross_attention: Literal[True] = True
    images_per_text: Literal[1, 2] = 1

    # Keys of BERT's config files that make no difference to this network.
    inert_keys: ClassVar[frozenset[str]] = frozenset(
        {
            "architectures",
            "classifier_dropout",
            "fusion_layer",
            "gradient_checkpointing",
            "model_type",
            "position_embedding_type",
            "transformers_version",
            "type_vocab_size",
            "use_cache",
        }
    )

    def check(self) -> list[tuple[str, str]]:
        """Return an error for each size that is impossible or does not fit the others."""
        limits = {"hidden_size": 65536, "num_hidden_layers": 1024, "num_attention_heads": 1024}
        limits |= {"intermediate_size": 1 << 20, "max_position_embeddings": 1 << 20}
        return size_errors(self, limits, width="hidden_size", heads="num_attention_heads")


def without_inert_keys(config: Mapping[str, object]) -> dict[str, object]:
    """Return a mapping in the style of BERT's config files without the keys that have no effect here."""
    return {key: value for key, value in config.items() if key not in TextConfig.inert_keys}
