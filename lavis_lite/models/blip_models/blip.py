"""The base class of the BLIP models: a vision transformer, a tokenizer, and loading of published weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from lavis_lite.common.checkpoint.store import load_strictly, save_atomically
from lavis_lite.common.config.schema import ConfigError, parse
from lavis_lite.common.texts import TokenizedTexts, TokenizeTexts
from lavis_lite.models.base_model import BaseModel
from lavis_lite.models.blip_models.inputs import InputError, checked_images, checked_texts
from lavis_lite.models.layers.med import TextLayer
from lavis_lite.models.layers.text_config import TextConfig, without_inert_keys
from lavis_lite.models.layers.vit import (
    DEFAULT_DROP_PATH,
    NAMED_SIZES,
    BlipVisionTransformer,
    VisionSizes,
    is_square_grid,
    resize_position_embedding,
)
from lavis_lite.models.weights.adapters.addresses import Weights
from lavis_lite.models.weights.adapters.salesforce import to_salesforce
from lavis_lite.models.weights.adapters.transformers import Kind
from lavis_lite.models.weights.adapters.transformers_export import write_transformers_folder
from lavis_lite.models.weights.tokenizer import (
    DECODER_TOKEN,
    DEFAULT_TOKENIZER,
    ENCODER_TOKEN,
    load_tokenizer,
)

MAX_IMAGE_SIZE = 8192  # pixels; every patch has a position embedding
CONFIGS = Path(__file__).parent.parent.parent / "configs" / "models"


class BlipBase(BaseModel):
    """Base class of the BLIP models. State-dict keys are those of the published checkpoints."""

    @dataclass
    class Config(BaseModel.Config):
        """Sizes and vocabulary.

        Attributes:
            vit_type: "base", "large", or sizes: {embed_dim, depth, num_heads, patch_size}.
            vit_grad_ckpt: recompute activations of vision blocks in the backward pass.
            vit_ckpt_layer: number of the last blocks that do so.
            vit_drop_path_rate: of the last block; None for 0, or 0.1 if `vit_type` is "large".
            vit_layer_norm_epsilon: of the vision transformer.
            image_size: side of the input in pixels.
            med_config: sizes of the text transformer: a name in configs/models, a path, or a mapping.
            tokenizer: a hub name, a folder, or "shapes".
            max_txt_len: maximum tokens of a text; longer ones are cut.
        """

        vit_type: Literal["base", "large"] | VisionSizes = "base"
        vit_grad_ckpt: bool = False
        vit_ckpt_layer: int = 0
        vit_drop_path_rate: float | None = None
        vit_layer_norm_epsilon: float = 1e-6
        image_size: int = 384
        med_config: str | dict[str, Any] = "med_config"
        tokenizer: str = DEFAULT_TOKENIZER
        max_txt_len: int = 40

        renamed: ClassVar[Mapping[str, str]] = {"med_config_path": "med_config"}

        def check(self) -> list[tuple[str, str]]:
            """Return an error for each impossible value."""
            patch = self.vision_sizes.patch_size
            if patch <= self.image_size <= MAX_IMAGE_SIZE:
                return []
            limits = f"must be from {patch} (one patch) to {MAX_IMAGE_SIZE} pixels"
            return [("image_size", f"{limits}, found {self.image_size}.")]

        @property
        def vision_sizes(self) -> VisionSizes:
            return self.vit_type if isinstance(self.vit_type, VisionSizes) else NAMED_SIZES[self.vit_type]

        @property
        def drop_path_rate(self) -> float:
            if self.vit_drop_path_rate is not None:
                return self.vit_drop_path_rate
            return 0.0 if isinstance(self.vit_type, VisionSizes) else DEFAULT_DROP_PATH[self.vit_type]

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.tokenizer = load_tokenizer(config.tokenizer)
        self.visual_encoder = BlipVisionTransformer(
            config.vision_sizes,
            image_size=config.image_size,
            drop_path_rate=config.drop_path_rate,
            layer_norm_epsilon=config.vit_layer_norm_epsilon,
            checkpointed_blocks=config.vit_ckpt_layer if config.vit_grad_ckpt else 0,
        )
        self.text_config = load_text_config(
            config.med_config, vocab_size=len(self.tokenizer), encoder_width=config.vision_sizes.embed_dim
        )
        positions = self.text_config.max_position_embeddings
        if config.max_txt_len > positions:  # the default adapts to a small model; a set value does not
            if config.max_txt_len != type(config).max_txt_len:
                raise ConfigError(
                    f"model.max_txt_len: {config.max_txt_len} tokens are more than the {positions} positions "
                    f"of the text model (max_position_embeddings); choose at most {positions}."
                )
            self.config = replace(config, max_txt_len=positions)

    @property
    def dec_token_id(self) -> int:
        """Id of [DEC], first token of a text that the decoder writes."""
        return self._token_id(DECODER_TOKEN)

    @property
    def enc_token_id(self) -> int:
        """Id of [ENC], first token of a text that is read with an image."""
        return self._token_id(ENCODER_TOKEN)

    def _token_id(self, token: str) -> int:
        token_id = self.tokenizer.convert_tokens_to_ids(token)
        assert isinstance(token_id, int)
        return token_id

    def to_text(self, token_ids: Tensor) -> str:
        """Return the text of token ids, without special tokens."""
        text = self.tokenizer.decode(token_ids, skip_special_tokens=True)
        assert isinstance(text, str)
        return text.strip()

    def tokenize(
        self,
        texts: Sequence[str],
        first_token_id: int | None = None,
        padding: Literal["longest", "max_length"] = "longest",
        max_length: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return input_ids and attention_mask, each (texts, length), on the device of the model.

        Args:
            texts: one or more.
            first_token_id: replaces [CLS]; it tells the text transformer its role.
            padding: to the longest of the texts, or to `max_length`.
            max_length: maximum tokens of a text; None for `max_txt_len`.
        """
        tokens = self.tokenized(texts, padding, max_length)
        input_ids = tokens.input_ids.to(self.device, non_blocking=True)
        if first_token_id is not None:
            input_ids = input_ids.clone()
            input_ids[:, 0] = first_token_id
        return input_ids, tokens.attention_mask.to(self.device, non_blocking=True)

    def tokenized(
        self,
        texts: Sequence[str],
        padding: Literal["longest", "max_length"] = "longest",
        max_length: int | None = None,
    ) -> TokenizedTexts:
        """Return `texts` with their tokens, on the CPU; tokens from a data-loading worker are reused.

        Args:
            texts: one or more.
            padding: to the longest of the texts, or to `max_length`.
            max_length: maximum tokens of a text; None for `max_txt_len`.

        Raises:
            InputError: something that is not a text.
        """
        max_length = max_length or self.config.max_txt_len
        if isinstance(texts, TokenizedTexts) and texts.made_for == (max_length, padding):
            return texts
        checked = list(checked_texts(texts, "texts"))
        return TokenizeTexts(self.tokenizer, {"texts": max_length}, padding)({"texts": checked})["texts"]

    def text_collator(self) -> TokenizeTexts:
        """Return what tokenizes the texts of a batch in data-loading workers."""
        return TokenizeTexts(self.tokenizer, self.text_lengths, self.text_padding)

    @property
    def text_padding(self) -> Literal["longest", "max_length"]:
        """Padding of the texts of a training batch."""
        return "longest"

    @property
    def text_lengths(self) -> dict[str, int]:
        """Key of a training batch -> maximum tokens of its texts."""
        return {"text_input": self.config.max_txt_len}

    def load(self, weights: Weights) -> None:
        """Load what an address holds.

        Raises:
            CheckpointError: the weights do not fit, or are for another number of attention heads.
        """
        weights.check_heads(self.config.vision_sizes.num_heads, self.text_config.num_attention_heads)
        super().load(weights)

    def load_weights(self, state_dict: Mapping[str, Tensor], source: str, fresh: Sequence[str] = ()) -> None:
        """Load published weights: position embeddings are resized, parts that the model lacks left out.

        Args:
            state_dict: the weights.
            source: where they come from, for messages.
            fresh: prefixes of weights that may be missing and then stay random.

        Raises:
            CheckpointError: keys are missing or have another shape; all are named.
        """
        state_dict = dict(state_dict)
        for key in ("visual_encoder.pos_embed", "visual_encoder_m.pos_embed"):
            if key in state_dict and is_square_grid(state_dict[key]):
                state_dict[key] = resize_position_embedding(
                    state_dict[key], tokens=self.visual_encoder.pos_embed.shape[1]
                )
        # Every weight of a part that the model has must be used.
        absent = [part for part in OTHER_PARTS if not any(key.startswith(part) for key in self.state_dict())]
        load_strictly(self, state_dict, source, unneeded=absent, fresh=fresh)

    def save_pretrained_files(self, folder: Path) -> None:
        """Write the tokenizer to ``folder/tokenizer``."""
        self.tokenizer.save_pretrained(folder / "tokenizer")

    def save_transformers(self, folder: str | Path, kind: Kind | None = None) -> Path:
        """Write a folder that a BLIP class of transformers and `BlipProcessor` load; return its path.

        Args:
            folder: to write.
            kind: "caption", "vqa" or "itm"; None for the only one that fits this model.

        Raises:
            ValueError: transformers has no class for this model, or cannot hold its weights.
        """
        return write_transformers_folder(
            self.state_dict(),
            folder,
            vision_sizes=self.config.vision_sizes,
            text_config=self.text_config,
            image_size=self.config.image_size,
            tokenizer=self.tokenizer,
            kind=kind,
            layer_norm_epsilon=self.config.vit_layer_norm_epsilon,
        )

    def save_salesforce(self, path: str | Path, pointer: str = "queue_ptr") -> Path:
        """Write a ``.pth`` in the layout of the published files; return its path.

        Args:
            path: to write.
            pointer: name of the queues' pointer: "ptr_queue" for BLIP's retrieval code.
        """
        path = Path(path).expanduser()
        save_atomically(to_salesforce(self.state_dict(), pointer), path)
        return path

    def compile_parts(self) -> None:
        """Compile each layer of the vision and text transformers; texts may vary in length."""
        for part in self.modules():
            if isinstance(part, TextLayer):
                part.compile(dynamic=True)
        for block in self.visual_encoder.blocks:
            block.compile()

    def encode_image(self, image: Any) -> Tensor:
        """Return hidden states (images, 1 + patches, width) of images.

        Args:
            image: (images, 3, image_size, image_size) from the image processors, a PIL image, or a list of
                PIL images.

        Raises:
            InputError: anything else.
        """
        return self.visual_encoder(self.check_image(image))

    def encode_frames(self, video: Tensor) -> Tensor:
        """Return hidden states (videos, frames, tokens, width) of `video` (videos, 3, frames, height, width).

        Raises:
            InputError: another shape or frame size.
        """
        if not isinstance(video, Tensor) or video.ndim != 5:
            shape = tuple(video.shape) if isinstance(video, Tensor) else type(video).__name__
            raise InputError(f"the videos are {shape}; expected (videos, 3, frames, height, width).")
        frames = video.transpose(1, 2)  # (videos, frames, 3, height, width)
        return self.encode_image(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def encode_visual(self, samples: Mapping[str, Any]) -> Tensor:
        """Return hidden states (samples, tokens, width) of samples["image"], or of samples["video"].

        The tokens of a video are those of all its frames, as in BLIP's zero-shot video tasks (paper section
        5.6).
        """
        if samples.get("video") is None:
            return self.encode_image(samples["image"])
        return self.encode_frames(samples["video"]).flatten(1, 2)

    def check_image(self, image: Any) -> Tensor:
        """Return images, in any form that `encode_image` accepts, as a tensor.

        Raises:
            InputError: anything else.
        """
        return checked_images(image, self.config.image_size, self.visual_encoder.patch_embed.proj.weight)


# Parts of the published checkpoints that not every model has.
OTHER_PARTS = (
    "text_encoder.",
    "text_decoder.",
    "vision_proj.",
    "text_proj.",
    "itm_head.",
    "cls_head.",
    "temp",
    "visual_encoder_m.",
    "text_encoder_m.",
    "vision_proj_m.",
    "text_proj_m.",
    "image_queue",
    "text_queue",
    "idx_queue",
    "queue_ptr",
    "ptr_queue",
)


def load_text_config(source: str | Mapping[str, Any], vocab_size: int, encoder_width: int) -> TextConfig:
    """Return the sizes of the text transformer.

    Args:
        source: a name in configs/models, a json file, or a mapping.
        vocab_size: of the tokenizer; the vocabulary is at least that large (BERT's 30522 becomes 30524).
        encoder_width: width of the vision transformer.

    Raises:
        ConfigError: no such file, an unknown key, or an `encoder_width` that is not the vision width.
    """
    where = "model.med_config"
    if isinstance(source, str):
        path = CONFIGS / f"{source}.json" if not source.endswith(".json") else Path(source).expanduser()
        if not path.is_file() and (CONFIGS / Path(source).name).is_file():
            path = CONFIGS / Path(source).name  # LAVIS writes configs/models/med_config.json
        if not path.is_file():
            names = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.json")))
            raise ConfigError(
                f"{where}: no file {str(path)!r}; give a json file, a mapping, or one of {names}."
            )
        where, sizes = f"{where} ({path.name})", json.loads(path.read_text(encoding="utf-8"))
    else:
        sizes = source
    config = parse(TextConfig, without_inert_keys(sizes), where=where)
    config.vocab_size = max(vocab_size, config.vocab_size or 0)
    if config.encoder_width not in (None, encoder_width):
        raise ConfigError(
            f"{where}: encoder_width is {config.encoder_width} but the vision transformer has width "
            f"{encoder_width}; leave encoder_width out, or choose the vit_type that fits."
        )
    config.encoder_width = encoder_width
    return config
