"""Visual question answering: a decoder answers a question that was read with its image (section 5.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_lite.common.config.schema import ConfigError
from lavis_lite.common.registry import registry
from lavis_lite.common.settings import AnswerSettings, GenerationSettings, updated
from lavis_lite.models.blip_models.blip import BlipBase
from lavis_lite.models.blip_models.blip_outputs import (
    BlipIntermediateOutput,
    BlipOutput,
    DecoderOutput,
    HiddenStates,
)
from lavis_lite.models.blip_models.inputs import InputError, check_one_each, checked_samples, checked_texts
from lavis_lite.models.blip_models.losses import IGNORED
from lavis_lite.models.generation import generate
from lavis_lite.models.layers.attention import ImageKeyValues
from lavis_lite.models.layers.cached_decoder import CachedDecoder
from lavis_lite.models.layers.med import TextDecoder, TextTransformer, select_images


@dataclass
class Question:
    """Questions that were read with their images.

    Attributes:
        image_embeds: (questions, tokens, width).
        states: (questions, length, hidden_size) of the text encoder.
        kv: `states` projected for each layer of the decoder.
        mask: (questions, 1, 1, length), true on tokens.
    """

    image_embeds: Tensor
    states: Tensor
    kv: list[ImageKeyValues]
    mask: Tensor


@registry.register_model("blip_vqa")
class BlipVQA(BlipBase):
    """Answers questions about images.

    Example:
        >>> from lavis_lite import load_model
        >>> model = load_model("blip_vqa", "tiny", is_eval=True)
        >>> samples = {"image": torch.zeros(1, 3, 64, 64), "text_input": ["what color is the star?"]}
        >>> model.predict_answers(samples, answer_list=["red"])
        ['red']
    """

    default_configs: ClassVar[Mapping[str, str]] = {
        "vqav2": "blip_vqav2",
        "okvqa": "blip_vqa_okvqa",
        "aokvqa": "blip_vqa_aokvqa",
        "tiny": "blip_vqa_tiny",
    }

    @dataclass
    class Config(BlipBase.Config):
        """Settings.

        Attributes:
            max_txt_len: maximum tokens of a question.
            label_smoothing: of the loss of answers, and of the score by which answers are ranked.
        """

        image_size: int = 480
        max_txt_len: int = 35
        label_smoothing: float = 0.1

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.text_encoder = TextTransformer(self.text_config)
        # It reads the states of the question, so the width of the vision transformer does not matter.
        self.text_decoder = TextDecoder(replace(self.text_config, encoder_width=self.text_config.hidden_size))
        self._answer_tokens: tuple[object, Tensor, Tensor] | None = None

    @property
    def text_lengths(self) -> dict[str, int]:
        """Key of a training batch -> maximum tokens of its texts."""
        return {"text_input": self.config.max_txt_len, "answer": self.config.max_txt_len}

    def forward(self, samples: Mapping[str, Any]) -> BlipOutput:
        """Return the weighted sum of the answers' negative log-likelihoods per question.

        Args:
            samples: "image" (questions, 3, image_size, image_size), "text_input", the questions, and answers
                in one of two forms. All answers in one list: "answer", with "n_answers" (questions,), how
                many belong to each question, and "weight" (answers,). Or by question: "answer" with a
                text or a list of texts for each, and "weight" in the same form. Without "weight", a
                question's answers weigh the same.

        Raises:
            InputError: not an image or a text, a question without answers, or numbers that do not agree.
        """
        samples = checked_samples(samples, "image", "text_input", "answer")
        answers, owners, weights = _flat_answers(samples, self.device)
        question = self.read_question(samples)
        input_ids, attention_mask = self.tokenize(answers, self.dec_token_id)
        kv, mask = select_images(question.kv, owners), question.mask[owners]
        decoder_output, losses = self._decode(input_ids, attention_mask, kv, mask)
        loss = (weights * losses).sum() / len(question.mask)
        return BlipOutput(
            loss=loss,
            loss_lm=loss,
            loss_weight=loss.new_full((), len(question.mask)),
            intermediate_output=BlipIntermediateOutput(
                image_embeds=question.image_embeds,
                encoder_output=HiddenStates.of(question.states),
                decoder_output=decoder_output,
                decoder_labels=input_ids.masked_fill(attention_mask == 0, IGNORED),
            ),
        )

    def read_question(self, samples: Mapping[str, Any]) -> Question:
        """Return the questions of samples["text_input"], read with samples["image"] or samples["video"].

        Raises:
            InputError: not an image or a text, or not one question for each image.
        """
        samples = checked_samples(samples, "image", "text_input")
        questions = samples["text_input"]
        image_embeds = self.encode_visual(samples)
        check_one_each(questions, image_embeds, "questions")
        input_ids, attention_mask = self.tokenize(questions, self.enc_token_id)
        states = self.text_encoder(
            input_ids,
            attention_mask,
            mode="multimodal",
            image_kv=self.text_encoder.project_image(image_embeds),
        )
        kv = self.text_decoder.bert.project_image(states)
        return Question(image_embeds, states, kv, attention_mask[:, None, None, :].bool())

    @torch.inference_mode()
    def predict_answers(
        self,
        samples: Mapping[str, Any],
        answer_list: Sequence[str] | None = None,
        **settings: Any,
    ) -> list[str]:
        """Return an answer to each question.

        Args:
            samples: "image" and "text_input", as for `forward`.
            answer_list: the answers to rank, if `inference_method` is "rank".
            **settings: fields of `AnswerSettings`, such as `inference_method` or `num_beams`.

        Raises:
            InputError: an unknown setting, a value out of range, or no answers to rank.
        """
        try:
            answering = updated(AnswerSettings(), settings, where="predict_answers")
        except ConfigError as error:
            raise InputError(str(error)) from error
        if answering.inference_method == "generate":
            return self._generate_answers(samples, answering)
        if not isinstance(answer_list, Sequence | None) or isinstance(answer_list, str):
            raise InputError(f"answer_list is a {type(answer_list).__name__}; give a list of answers.")
        if not answer_list:
            raise InputError(
                "inference_method 'rank' needs answer_list, the answers to choose from; give one, or use "
                "inference_method='generate'."
            )
        best = self.rank_answers(samples, answer_list, answering.num_ans_candidates)
        return [answer_list[index] for index in best.tolist()]

    @torch.no_grad()
    def rank_answers(
        self, samples: Mapping[str, Any], answer_list: Sequence[str], num_ans_candidates: int = 128
    ) -> Tensor:
        """Return, for each question, the index in `answer_list` of its likeliest answer: (questions,).

        Candidates are the `num_ans_candidates` answers whose first tokens are likeliest. They are read side
        by side, with one projection of their question.
        """
        question = self.read_question(samples)
        count = len(question.mask)
        input_ids, attention_mask = self._tokenized_answers(answer_list)
        start = input_ids.new_full((count, 1), self.dec_token_id)
        hidden = self.text_decoder(start, None, question.kv, question.mask)
        first = self.text_decoder.head(hidden[:, 0]).log_softmax(-1)  # (questions, vocab_size)
        candidates = min(num_ans_candidates, len(answer_list))
        indices = first[:, input_ids[:, 1]].topk(candidates, dim=1).indices  # (questions, candidates)
        masks = attention_mask[indices].flatten(0, 1)
        length = int(masks.sum(1).max())
        ids = input_ids[indices].flatten(0, 1)[:, :length]
        _, losses = self._decode(ids, masks[:, :length], question.kv, question.mask)
        losses = losses.unflatten(0, (count, candidates))
        return indices.gather(1, losses.argmin(1, keepdim=True))[:, 0]

    def load_weights(self, state_dict: Mapping[str, Tensor], source: str, fresh: Sequence[str] = ()) -> None:
        """Load weights of VQA or of pretraining.

        A pretrained decoder read image tokens, this one reads question tokens. If their widths differ
        (ViT-L), the keys and values of its cross-attention stay random.
        """
        shapes = {key: tensor.shape for key, tensor in self.state_dict().items()}
        of_other_width = [
            key
            for key, tensor in state_dict.items()
            if re.match(r"text_decoder\..*\.crossattention\.self\.(key|value)\.weight", key)
            and shapes.get(key, tensor.shape) != tensor.shape
        ]
        state_dict = {key: tensor for key, tensor in state_dict.items() if key not in of_other_width}
        super().load_weights(state_dict, source, (*fresh, *of_other_width))

    def _decode(
        self, input_ids: Tensor, attention_mask: Tensor, kv: list[ImageKeyValues], mask: Tensor
    ) -> tuple[DecoderOutput, Tensor]:
        """Return the output of the decoder, and each answer's negative log-likelihood (answers,).

        `input_ids` are (answers, length), answers = questions * k, a question's answers adjacent.
        """
        hidden = self.text_decoder(input_ids, attention_mask, kv, mask)
        predicted = attention_mask[:, 1:].bool()
        logits = self.text_decoder.head(hidden[:, :-1][predicted]).float()
        losses = F.cross_entropy(
            logits,
            input_ids[:, 1:][predicted],
            reduction="none",
            label_smoothing=self.config.label_smoothing,
        )
        rows = torch.arange(len(input_ids), device=input_ids.device)[:, None].expand_as(predicted)[predicted]
        losses = losses.new_zeros(len(input_ids)).index_add(0, rows, losses)
        return DecoderOutput(hidden, logits, self.text_decoder.head), losses

    def _generate_answers(self, samples: Mapping[str, Any], answering: AnswerSettings) -> list[str]:
        question = self.read_question(samples)
        count = len(question.mask)
        settings = GenerationSettings(
            num_beams=answering.num_beams, max_length=answering.max_len, min_length=answering.min_len
        )
        token_rows = generate(
            CachedDecoder(self.text_decoder, question.kv, settings.max_length, question.mask),
            torch.full((count, 1), self.dec_token_id, device=self.device),
            torch.ones(count, dtype=torch.long, device=self.device),
            settings,
            eos_id=self.tokenizer.sep_token_id,
            pad_id=self.tokenizer.pad_token_id,
        )
        return [self.to_text(rows[0]) for rows in token_rows]

    def _tokenized_answers(self, answer_list: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids and mask (answers, length); those of the last list are cached for an evaluation."""
        key = (tuple(answer_list), self.device)
        if self._answer_tokens is None or self._answer_tokens[0] != key:
            self._answer_tokens = (key, *self.tokenize(answer_list, self.dec_token_id))
        return self._answer_tokens[1:]


def _flat_answers(samples: Mapping[str, Any], device: torch.device) -> tuple[Sequence[str], Tensor, Tensor]:
    """Return all answers, the number of the question of each (answers,), and their weights (answers,)."""
    answers, weights = samples["answer"], samples.get("weight")
    questions = len(samples["text_input"])
    if samples.get("n_answers") is not None:
        counts = [int(count) for count in samples["n_answers"]]
    else:
        answers = [answers] if isinstance(answers, str) else answers
        if not isinstance(answers, Sequence):
            raise InputError(
                f"samples['answer'] is a {type(answers).__name__}; give one list of texts for each question."
            )
        answers, counts = _flattened(answers)
        weights = None if weights is None else _flattened(weights)[0]
        if 0 in counts:
            raise InputError(f"samples['answer'][{counts.index(0)}] is empty; give each question an answer.")
    if weights is None:
        weights = [1 / count for count in counts for _ in range(count)]
    answers = checked_texts(answers, "samples['answer']")
    if len(counts) != questions:
        raise InputError(
            f"answers for {len(counts)} questions, but {questions} questions; give answers for each."
        )
    owners = torch.repeat_interleave(torch.arange(questions), torch.tensor(counts)).to(device)
    weights = torch.as_tensor(weights, dtype=torch.float32, device=device)
    if not len(answers) == len(owners) == len(weights):
        raise InputError(
            f"{len(answers)} answers and {len(weights)} weights, but n_answers adds up to {len(owners)}; the "
            "three must agree."
        )
    return answers, owners, weights


def _flattened(items: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """Return `items`, some of which are lists, as one list, and the length of each."""
    lists = [item if isinstance(item, list | tuple) else [item] for item in items]
    return [value for values in lists for value in values], [len(values) for values in lists]
