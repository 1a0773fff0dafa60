"""Sizes of the text transformer, as BERT's config files name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from lavis_lite.models.layers.vit import impossible_sizes


@dataclass
class TextConfig:
    """Sizes of the text transformer; the defaults are BERT-base's, as BLIP uses it.

    `vocab_size` None means as many as the tokenizer has; `encoder_width` None means the width
    of the vision transformer. `images_per_text` is 2 for NLVR, whose texts speak of a pair.
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

    # What BERT's config files say besides, and what makes no difference to this network.
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
        """Return complaints about sizes that are impossible, or do not fit each other."""
        limits = {"hidden_size": 65536, "num_hidden_layers": 1024, "num_attention_heads": 1024}
        limits |= {"intermediate_size": 1 << 20, "max_position_embeddings": 1 << 20}
        impossible = impossible_sizes(self, limits)
        if impossible:
            return impossible
        if self.hidden_size % self.num_attention_heads:
            return [
                (
                    "num_attention_heads",
                    f"{self.num_attention_heads} heads do not divide hidden_size {self.hidden_size}.",
                )
            ]
        return []


def without_inert_keys(config: Mapping[str, object]) -> dict[str, object]:
    """Return a BERT-style config mapping without the keys that mean nothing to this network."""
    return {key: value for key, value in config.items() if key not in TextConfig.inert_keys}
