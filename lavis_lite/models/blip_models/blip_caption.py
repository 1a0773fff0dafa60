"""The captioner: a vision transformer and a decoder that reads all its tokens (paper section 3.1)."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from lavis_lite.common.config.schema import parse
from lavis_lite.common.registry import registry
from lavis_lite.common.settings import GenerationSettings, updated
from lavis_lite.common.texts import TokenizedTexts
from lavis_lite.models.blip_models.blip import BlipBase
from lavis_lite.models.blip_models.blip_outputs import BlipIntermediateOutput, BlipOutput, DecoderOutput
from lavis_lite.models.blip_models.inputs import (
    InputError,
    check_same_number_each,
    checked_samples,
    checked_texts,
)
from lavis_lite.models.blip_models.losses import IGNORED, language_model_loss
from lavis_lite.models.generation import generate
from lavis_lite.models.layers.cached_decoder import CachedDecoder
from lavis_lite.models.layers.med import TextDecoder

logger = logging.getLogger(__name__)


@registry.register_model("blip_caption")
class BlipCaption(BlipBase):
    """Writes captions of images.

    Example:
        >>> from lavis_lite import load_model
        >>> model = load_model("blip_caption", "tiny")
        >>> len(model.generate({"image": torch.zeros(2, 3, 64, 64)}, max_length=8, min_length=1))
        2
    """

    default_configs: ClassVar[Mapping[str, str]] = {
        "base_coco": "blip_caption_base_coco",
        "large_coco": "blip_caption_large_coco",
        "base": "blip_caption_base",
        "large": "blip_caption_large",
        "tiny": "blip_caption_tiny",
    }

    @dataclass
    class Config(BlipBase.Config):
        """Settings of the captioner.

        Attributes:
            prompt: text that every caption starts with, in training and generation; it is cut off what is
                generated. None or "" for none.
            label_smoothing: of the language-model loss.
            generation: how captions are generated if neither the call nor the checkpoint says.
        """

        prompt: str | None = None
        label_smoothing: float = 0.1
        generation: GenerationSettings = field(default_factory=GenerationSettings)

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.text_decoder = TextDecoder(self.text_config)
        self.prompt = config.prompt or ""
        self.prompt_ids = torch.tensor(self.tokenizer(self.prompt).input_ids[:-1])  # without [SEP]
        self.prompt_length = len(self.prompt_ids)
        self._warned_of_prompts = False
        self.generation_settings = config.generation

    def forward(self, samples: Mapping[str, Any]) -> BlipOutput:
        """Return the language-model loss of captions.

        Args:
            samples: "image" (images, 3, image_size, image_size) and "text_input", captions that begin with
                the prompt: the same number for each image, adjacent. Each image is encoded once.

        Raises:
            InputError: not an image or a text, a caption with nothing after the prompt, or captions that
                cannot be divided among the images.
        """
        samples = checked_samples(samples, "image", "text_input")
        image_embeds = self.forward_encoder(samples)
        decoder_output, labels, loss, tokens = self.forward_decoder(samples, image_embeds)
        return BlipOutput(
            loss=loss,
            loss_lm=loss,
            loss_weight=tokens,
            intermediate_output=BlipIntermediateOutput(
                image_embeds=image_embeds, decoder_output=decoder_output, decoder_labels=labels
            ),
        )

    def forward_encoder(self, samples: Mapping[str, Any]) -> Tensor:
        """Return image_embeds (images, 1 + patches, width)."""
        return self.encode_image(samples["image"])

    def forward_decoder(
        self, samples: Mapping[str, Any], image_embeds: Tensor
    ) -> tuple[DecoderOutput, Tensor, Tensor, Tensor]:
        """Return the output of the decoder, its labels, the mean loss, and the number of predicted tokens."""
        check_same_number_each(samples["text_input"], image_embeds)
        texts = self.tokenized(samples["text_input"])
        self._check_prompts(texts)
        input_ids, attention_mask = self.tokenize(texts, self.dec_token_id)
        labels = input_ids.masked_fill(attention_mask == 0, IGNORED)
        labels[:, : self.prompt_length] = IGNORED
        image_kv = self.text_decoder.bert.project_image(image_embeds)
        decoder_output, loss, tokens = language_model_loss(
            self.text_decoder, input_ids, attention_mask, labels, image_kv, self.config.label_smoothing
        )
        return decoder_output, labels, loss, tokens

    @torch.inference_mode()
    def generate(
        self,
        samples: Mapping[str, Any],
        num_captions: int = 1,
        prompt: str | Sequence[str] | None = None,
        seed: int | Sequence[int] | None = None,
        **settings: Any,
    ) -> list[str]:
        """Return `num_captions` captions for each image, an image's captions adjacent.

        Args:
            samples: "image": (images, 3, image_size, image_size), a PIL image, or a list of them; may have
                "prompt".
            num_captions: sampled independently, or the best beams (then at most `num_beams`).
            prompt: one for all images or one for each; "" for none; None for the model's `prompt`.
            seed: of sampling. A list has one seed for each image, whose captions then do not depend on the
                rest of the batch.
            **settings: fields of `GenerationSettings`, such as `num_beams` or `use_nucleus_sampling`. Those
                left out or None are as the checkpoint was validated with, else as in the model's config.

        Raises:
            ConfigError: a setting out of range.
            ValueError: more captions than beams, or a prompt that fills `max_length`.
        """
        generation = updated(self.generation_settings, settings, where="generate")
        if not isinstance(num_captions, int) or num_captions < 1:
            raise InputError(f"num_captions must be a whole number of at least 1, found {num_captions!r}.")
        samples = checked_samples(samples, "image")
        image_embeds = self.forward_encoder(samples)
        prompt_ids, prompt_lengths = self._encode_prompts(
            samples.get("prompt") if prompt is None else prompt, len(image_embeds)
        )
        decoder = CachedDecoder(
            self.text_decoder, self.text_decoder.bert.project_image(image_embeds), generation.max_length
        )
        token_rows = generate(
            decoder,
            prompt_ids.to(image_embeds.device),
            prompt_lengths.to(image_embeds.device),
            generation,
            eos_id=self.tokenizer.sep_token_id,
            pad_id=self.tokenizer.pad_token_id,
            num_captions=num_captions,
            seed=seed,
        )
        return [self.to_text(row) for rows in token_rows for row in rows]

    def inference_settings(self) -> dict[str, Any]:
        """Return the generation settings."""
        return {"generation": dataclasses.asdict(self.generation_settings)}

    def load_inference_settings(self, settings: Mapping[str, Any]) -> None:
        """Use the generation settings of a checkpoint, if it has them."""
        if "generation" in settings:
            self.generation_settings = parse(
                GenerationSettings, settings["generation"], where="checkpoint.inference.generation"
            )

    def _check_prompts(self, texts: TokenizedTexts) -> None:
        """Raise an error for a caption that is only a prompt; warn of one that lacks it.

        Reads the tokens while they are on the CPU.
        """
        lengths = texts.attention_mask.sum(1)
        if int(lengths.min()) <= self.prompt_length:
            index = int(lengths.argmin())
            raise InputError(
                f"samples['text_input'][{index}] ({texts[index]!r:.60}) leaves nothing to learn after the "
                f"model's prompt {self.prompt!r} ({self.prompt_length} tokens): captions must begin with the "
                f"prompt, which the text processor adds, and have more tokens than it (max_txt_len is "
                f"{self.config.max_txt_len})."
            )
        has_prompt = texts.input_ids[:, 1 : self.prompt_length] == self.prompt_ids[1:]
        if not (self._warned_of_prompts or has_prompt.all()):
            self._warned_of_prompts = True
            index = int((~has_prompt.all(1)).nonzero()[0])
            logger.warning(
                "The caption %r does not begin with the model's prompt %r: its first %d tokens are not "
                "learned. The text processor adds the prompt.",
                texts[index],
                self.prompt,
                self.prompt_length,
            )

    def _encode_prompts(self, prompt: str | Sequence[str] | None, images: int) -> tuple[Tensor, Tensor]:
        """Return prompt ids (images, longest), padded on the right, and their lengths (images,)."""
        prompt = self.prompt if prompt is None else prompt
        prompts = [prompt] * images if isinstance(prompt, str) else list(checked_texts(prompt, "prompt"))
        if len(prompts) != images:
            raise InputError(
                f"{len(prompts)} prompts for {images} images; give one for all, or one for each image."
            )
        tokens = self.tokenizer(prompts, padding="longest", return_tensors="pt")
        prompt_ids = tokens.input_ids
        prompt_ids[:, 0] = self.dec_token_id
        # Without the final [SEP], which would end the caption.
        return prompt_ids[:, :-1].contiguous(), tokens.attention_mask.sum(1) - 1
