"""Our weights as a folder that transformers' BLIP classes and `BlipProcessor` load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

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
from lavis_lite.models.weights.adapters.transformers_folder import TEXT_SIZES

if TYPE_CHECKING:
    from transformers import BlipConfig, PreTrainedTokenizerBase

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

    transformers reads a question, and a text to match, with [CLS] in the first place, where BLIP was
    trained with [ENC]: replace it in `input_ids` to get BLIP's scores.

    Args:
        kind: None for the only one that the weights can be.
        layer_norm_epsilon: of the vision transformer.

    Raises:
        ValueError: the weights lack a part, or transformers cannot hold them.
    """
    kind = kind if kind is not None else kind_of(state_dict)
    theirs = to_transformers(state_dict, kind)
    _check_cross_attention(theirs, vision_sizes)
    without_tied = _without_tied(theirs)
    config = _config(kind, without_tied, vision_sizes, text_config, image_size, tokenizer, layer_norm_epsilon)
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    _write_processor(folder, image_size, tokenizer)
    _write_config(folder, config)
    _write_weights(folder, without_tied)
    return folder


def _check_cross_attention(theirs: Mapping[str, Tensor], vision_sizes: VisionSizes) -> None:
    """Refuse what transformers cannot hold: there, all cross-attention has the width of the images."""
    for key, tensor in theirs.items():
        if key.endswith("crossattention.self.key.weight") and tensor.shape[1] != vision_sizes.embed_dim:
            raise ValueError(
                f"{key} reads states of width {tensor.shape[1]}, but transformers has one width for all "
                f"cross-attention, that of the vision transformer ({vision_sizes.embed_dim}); models for "
                "questions fit only if the text transformer is as wide as that."
            )


def _without_tied(theirs: Mapping[str, Tensor]) -> StateDict:
    for tied, original in TIED.items():
        if tied in theirs and not torch.equal(theirs[tied], theirs[original]):
            raise ValueError(f"{tied} differs from {original}, to which transformers would tie it.")
    return {key: tensor.contiguous() for key, tensor in theirs.items() if key not in TIED}


def _config(
    kind: Kind,
    theirs: Mapping[str, Tensor],
    vision_sizes: VisionSizes,
    text_config: TextConfig,
    image_size: int,
    tokenizer: PreTrainedTokenizerBase,
    layer_norm_epsilon: float,
) -> BlipConfig:
    from transformers import BlipConfig

    vocab_size = next(len(weight) for key, weight in theirs.items() if key.endswith("word_embeddings.weight"))
    text = {name: getattr(text_config, name) for name in TEXT_SIZES}
    text |= {
        "vocab_size": vocab_size,
        "hidden_dropout_prob": text_config.hidden_dropout_prob,
        "attention_probs_dropout_prob": text_config.attention_probs_dropout_prob,
        "initializer_range": text_config.initializer_range,
        "projection_dim": text_config.hidden_size,
        "label_smoothing": LABEL_SMOOTHING,
        **_special_tokens(tokenizer),
        "sep_token_id": tokenizer.sep_token_id,
    }
    vision = {
        "hidden_size": vision_sizes.embed_dim,
        "intermediate_size": 4 * vision_sizes.embed_dim,
        "num_hidden_layers": vision_sizes.depth,
        "num_attention_heads": vision_sizes.num_heads,
        "patch_size": vision_sizes.patch_size,
        "image_size": image_size,
        "layer_norm_eps": layer_norm_epsilon,
    }
    embedding = {}
    if "vision_proj.weight" in theirs:
        width = len(theirs["vision_proj.weight"])
        embedding = {"image_text_hidden_size": width, "projection_dim": width}
    config = BlipConfig(text_config=text, vision_config=vision, **embedding)
    config.architectures = [CLASS_NAMES[kind]]
    config.dtype = theirs["vision_model.embeddings.class_embedding"].dtype
    return config


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    # [SEP] ends a text, so it is the end token; transformers' own default would be another word.
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _write_config(folder: Path, config: BlipConfig) -> None:
    from transformers import GenerationConfig

    config.save_pretrained(folder)
    if config.architectures != [CLASS_NAMES["itm"]]:
        text = config.text_config
        GenerationConfig(
            bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
        ).save_pretrained(folder)


def _write_processor(folder: Path, image_size: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the parts of a `BlipProcessor`, apart: building one would change the model's tokenizer."""
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    # Its defaults are CLIP's mean and deviation, bicubic; Pillow's pixels are those of BLIP's training.
    BlipImageProcessorPil(size={"height": image_size, "width": image_size}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_weights(folder: Path, theirs: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    aside = folder / ".model.safetensors.tmp"
    save_file(dict(_unshared(theirs)), aside, metadata={"format": "pt"})
    aside.replace(folder / "model.safetensors")


def _unshared(theirs: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors on the CPU with memory of their own, as safetensors wants them."""
    seen: set[int] = set()
    for key, tensor in theirs.items():
        tensor = tensor.detach().cpu()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        yield key, tensor
