"""Writing folders that transformers' BLIP classes and `BlipProcessor` load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lavis_lite.models.layers.text_config import TextConfig
from lavis_lite.models.layers.vit import VisionSizes
from lavis_lite.models.weights.adapters.transformers import (
    CLASS_NAMES,
    TIED,
    Kind,
    StateDict,
    kind_of,
    to_transformers,
)
from lavis_lite.models.weights.adapters.transformers_folder import TEXT_KEYS, VISION_KEYS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TRAINING_KEYS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")
LABEL_SMOOTHING = 0.1


def write_transformers_folder(
    state_dict: Mapping[str, Tensor],
    folder: str | Path,
    *,
    vision_sizes: VisionSizes,
    text_config: TextConfig,
    image_size: int,
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind | None = None,
    layer_norm_epsilon: float = 1e-6,
) -> Path:
    """Write weights so that transformers' BLIP class and `BlipProcessor` load `folder`; return it.

    transformers puts [CLS] first in a question, or in a text to match, where BLIP was trained with [ENC]:
    replace it in `input_ids` to get BLIP's scores.

    Args:
        kind: None to infer it from the weights.
        layer_norm_epsilon: of the vision transformer.

    Raises:
        ValueError: the weights lack a part, or transformers cannot hold them.
    """
    kind = kind or kind_of(state_dict)
    weights = to_transformers(state_dict, kind)
    _check_cross_attention(weights, vision_sizes)
    weights = _without_tied(weights)
    special_tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.sep_token_id,  # [SEP] ends a text; transformers' default is another token
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = {key: getattr(text_config, key) for key in (*TEXT_KEYS, *_TRAINING_KEYS)}
    text |= special_tokens | {
        "vocab_size": next(len(w) for key, w in weights.items() if key.endswith("word_embeddings.weight")),
        "projection_dim": text_config.hidden_size,
        "label_smoothing": LABEL_SMOOTHING,
        "sep_token_id": tokenizer.sep_token_id,
    }
    vision = {key: getattr(vision_sizes, field) for field, key in VISION_KEYS.items()}
    vision |= {
        "intermediate_size": 4 * vision_sizes.embed_dim,
        "image_size": image_size,
        "layer_norm_eps": layer_norm_epsilon,
    }
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    _write_processor(folder, image_size, tokenizer)
    _write_config(folder, kind, weights, text, vision)
    if kind != "itm":
        _write_generation_config(folder, special_tokens)
    _write_weights(folder, weights)
    return folder


def _check_cross_attention(weights: Mapping[str, Tensor], vision_sizes: VisionSizes) -> None:
    """Refuse weights that transformers cannot hold: all its cross-attention has the width of the images."""
    for key, tensor in weights.items():
        if key.endswith("crossattention.self.key.weight") and tensor.shape[1] != vision_sizes.embed_dim:
            raise ValueError(
                f"{key} reads states of width {tensor.shape[1]}, but transformers has one width for all "
                f"cross-attention, that of the vision transformer ({vision_sizes.embed_dim}); models for "
                "questions fit only if the text transformer is as wide as that."
            )


def _without_tied(weights: Mapping[str, Tensor]) -> StateDict:
    for tied, original in TIED.items():
        if tied in weights and not torch.equal(weights[tied], weights[original]):
            raise ValueError(f"{tied} differs from {original}, to which transformers would tie it.")
    return {key: tensor for key, tensor in weights.items() if key not in TIED}


def _write_config(
    folder: Path, kind: Kind, weights: StateDict, text: dict[str, Any], vision: dict[str, Any]
) -> None:
    from transformers import BlipConfig

    content: dict[str, Any] = {"text_config": text, "vision_config": vision}
    if "vision_proj.weight" in weights:
        width = len(weights["vision_proj.weight"])
        content |= {"image_text_hidden_size": width, "projection_dim": width}
    config = BlipConfig(**content)
    config.architectures = [CLASS_NAMES[kind]]
    config.dtype = weights["vision_model.embeddings.class_embedding"].dtype
    config.save_pretrained(folder)


def _write_generation_config(folder: Path, special_tokens: Mapping[str, Any]) -> None:
    from transformers import GenerationConfig

    GenerationConfig(**special_tokens).save_pretrained(folder)


def _write_processor(folder: Path, image_size: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the parts of a `BlipProcessor` one by one: building it would change the model's tokenizer."""
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    # Its defaults are CLIP's mean and deviation, bicubic; Pillow's pixels are those of BLIP's training.
    BlipImageProcessorPil(size={"height": image_size, "width": image_size}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    # safetensors refuses tensors that share memory
    copies = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in weights.items()
    }
    temporary = folder / ".model.safetensors.tmp"
    save_file(copies, temporary, metadata={"format": "pt"})
    temporary.replace(folder / "model.safetensors")
