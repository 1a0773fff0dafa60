"""Visual question answering: a decoder that answers from the question read with the image (section 5.3)."""

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
from lavis_lite.models.blip_models.blip_outputs import BlipOutput
from lavis_lite.models.blip_models.inputs import InputError, checked_samples, checked_texts
from lavis_lite.models.generation import generate
from lavis_lite.models.layers.attention import ImageKeyValues
from lavis_lite.models.layers.cached_decoder import CachedDecoder
from lavis_lite.models.layers.med import TextDecoder, TextTransformer, select_images


@dataclass
class Question:
    """Questions read with their images, as the decoder sees them.

    Attributes:
        kv: each decoder layer's keys and values of the question's tokens.
        mask: (questions, 1, 1, length), true on tokens.
    """

    kv: list[ImageKeyValues]
    mask: Tensor

    def select(self, rows: Tensor) -> Question:
        """Return those of `rows`; a question may be taken several times."""
        return Question(select_images(self.kv, rows), self.mask[rows])


@registry.register_model("blip_vqa")
class BlipVQA(BlipBase):
    """Answer questions about images.

    Example:
        >>> from lavis_lite import load_model
        >>> model = load_model("blip_vqa", "tiny", is_eval=True)
        >>> samples = {"image": torch.zeros(1, 3, 64, 64), "text_input": ["what colour is the star?"]}
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
            max_txt_len: tokens that a question is cut to.
            label_smoothing: of the answers' loss, and of the score by which answers are ranked.
        """

        image_size: int = 480
        max_txt_len: int = 35
        label_smoothing: float = 0.1

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.text_encoder = TextTransformer(self.text_config)
        # It attends to the question's states, whatever the width of the vision transformer.
        self.text_decoder = TextDecoder(replace(self.text_config, encoder_width=self.text_config.hidden_size))
        self._answer_tokens: tuple[tuple[str, ...], Tensor, Tensor] | None = None

    @property
    def text_lengths(self) -> dict[str, int]:
        """Key of a training batch -> tokens that its texts are cut to."""
        return {"text_input": self.config.max_txt_len, "answer": self.config.max_txt_len}

    def forward(self, samples: Mapping[str, Any]) -> BlipOutput:
        """Return the loss of answers: the sum over answers of weight times negative log-likelihood.

        It is a mean over questions, not over tokens or answers.

        Args:
            samples: "image" (questions, 3, image_size, image_size), "text_input" the questions,
                "answer" the answers of all questions end to end, "n_answers" (questions,) how many of
                them belong to each, "weight" (answers,). Or, without "n_answers", "answer" as one
                text or one list of texts a question, and "weight" in the same form or not at all (then
                a question's answers weigh alike).

        Raises:
            InputError: something that is no image or text, a question without answers, or counts that
                do not agree.
        """
        samples = checked_samples(samples, "image", "text_input", "answer")
        answers, owners, weights = _flat_answers(samples, self.device)
        question = self.read_question(samples)
        input_ids, attention_mask = self.tokenize(answers, self.dec_token_id)
        chosen = question.select(owners)
        losses = self._negative_log_likelihood(input_ids, attention_mask, chosen)
        loss = (weights * losses).sum() / len(question.mask)
        return BlipOutput(loss=loss, loss_lm=loss, loss_weight=loss.new_tensor(float(len(question.mask))))

    def read_question(self, samples: Mapping[str, Any]) -> Question:
        """Return the questions read with their images, or with samples["video"]; each is projected once.

        Raises:
            ValueError: not as many questions as images.
        """
        samples = checked_samples(samples, "image", "text_input")
        questions = samples["text_input"]
        image_embeds = self.encode_visual(samples)
        if len(questions) != len(image_embeds):
            raise InputError(f"{len(questions)} questions for {len(image_embeds)} images; give one an image.")
        input_ids, attention_mask = self.tokenize(questions, self.enc_token_id)
        states = self.text_encoder(
            input_ids,
            attention_mask,
            mode="multimodal",
            image_kv=self.text_encoder.project_image(image_embeds),
        )
        return Question(self.text_decoder.bert.project_image(states), attention_mask[:, None, None, :].bool())

    @torch.inference_mode()
    def predict_answers(
        self,
        samples: Mapping[str, Any],
        answer_list: Sequence[str] | None = None,
        **settings: Any,
    ) -> list[str]:
        """Return one answer a question.

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
        """Return the number (questions,) of each question's likeliest answer in `answer_list`.

        A question's candidates lie side by side on one projection of it.
        """
        question = self.read_question(samples)
        count = len(question.mask)
        input_ids, attention_mask = self._tokenized_answers(answer_list)
        start = input_ids.new_full((count, 1), self.dec_token_id)
        hidden = self.text_decoder(start, None, question.kv, question.mask)
        first = self.text_decoder.head(hidden[:, 0]).log_softmax(-1)  # (questions, vocab_size)
        candidates = min(num_ans_candidates, len(answer_list))
        chosen = first[:, input_ids[:, 1]].topk(candidates, dim=1).indices  # (questions, candidates)
        chosen_mask = attention_mask[chosen].flatten(0, 1)
        length = int(chosen_mask.sum(1).max())
        losses = self._negative_log_likelihood(
            input_ids[chosen].flatten(0, 1)[:, :length], chosen_mask[:, :length], question
        ).unflatten(0, (count, candidates))
        return chosen.gather(1, losses.argmin(1, keepdim=True))[:, 0]

    def load_weights(self, state_dict: Mapping[str, Tensor], source: str) -> None:
        """Take weights of VQA or of pretraining.

        A pretrained decoder looked at a vision transformer, ours looks at the question: where these have
        other widths (ViT-L), the keys and values of its cross-attention start anew.

        Raises:
            CheckpointError: a key that the model needs is missing or mis-shaped; all are named.
        """
        own = self.state_dict()
        of_other_width = [
            key
            for key, tensor in state_dict.items()
            if re.match(r"text_decoder\..*\.crossattention\.self\.(key|value)\.weight", key)
            and key in own
            and tensor.shape != own[key].shape
        ]
        kept = {key: tensor for key, tensor in state_dict.items() if key not in of_other_width}
        super().load_weights(kept, source, fresh=of_other_width)

    def _negative_log_likelihood(
        self, input_ids: Tensor, attention_mask: Tensor, question: Question
    ) -> Tensor:
        """Return (answers,) sums over each answer's tokens.

        Args:
            input_ids: (answers, length), answers = questions * k, a question's answers adjacent.
        """
        hidden = self.text_decoder(input_ids, attention_mask, question.kv, question.mask)
        predicted = attention_mask[:, 1:].bool()
        logits = self.text_decoder.head(hidden[:, :-1][predicted]).float()
        losses = F.cross_entropy(
            logits,
            input_ids[:, 1:][predicted],
            reduction="none",
            label_smoothing=self.config.label_smoothing,
        )
        rows = torch.arange(len(input_ids), device=input_ids.device)[:, None].expand_as(predicted)[predicted]
        return losses.new_zeros(len(input_ids)).index_add(0, rows, losses)

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
        return [self.tokenizer.decode(rows[0], skip_special_tokens=True).strip() for rows in token_rows]

    def _tokenized_answers(self, answer_list: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids and mask (answers, length); the list stays the same through an evaluation."""
        key = tuple(answer_list)
        kept = self._answer_tokens
        if kept is None or kept[0] != key or kept[1].device != self.device:
            kept = (key, *self.tokenize(answer_list, self.dec_token_id))
            self._answer_tokens = kept
        return kept[1], kept[2]


def _flat_answers(samples: Mapping[str, Any], device: torch.device) -> tuple[Sequence[str], Tensor, Tensor]:
    """Return all answers, the question number of each (answers,), and their weights (answers,)."""
    answers, weights = samples["answer"], samples.get("weight")
    questions = len(samples["text_input"])
    if samples.get("n_answers") is None:
        answers, counts, weights = _end_to_end(answers, weights)
    else:
        counts = [int(count) for count in samples["n_answers"]]
        if weights is None:
            weights = [1 / count for count in counts for _ in range(count)]
    answers = checked_texts(answers, "samples['answer']")
    if len(counts) != questions:
        raise InputError(
            f"answers for {len(counts)} questions, but {questions} questions; give some for each."
        )
    owners = torch.repeat_interleave(torch.arange(questions), torch.tensor(counts)).to(device)
    weights = torch.as_tensor(weights, dtype=torch.float32, device=device)
    if not len(answers) == len(owners) == len(weights):
        raise InputError(
            f"{len(answers)} answers, {len(weights)} weights and {len(owners)} by n_answers: they must agree."
        )
    return answers, owners, weights


def _end_to_end(answers: Any, weights: Any) -> tuple[list[Any], list[int], list[float]]:
    """Return answers that are listed question by question as one list, and how many each question has."""
    if isinstance(answers, str):
        answers = [answers]
    if not isinstance(answers, Sequence):
        raise InputError(
            f"samples['answer'] is a {type(answers).__name__}; give one list of texts a question."
        )
    lists = [own if isinstance(own, list | tuple) else [own] for own in answers]
    counts = [len(own) for own in lists]
    if 0 in counts:
        raise InputError(f"samples['answer'][{counts.index(0)}] is empty; give each question an answer.")
    if weights is None:
        weights = [1 / count for count in counts for _ in range(count)]
    else:
        weights = [w for own in weights for w in (own if isinstance(own, list | tuple) else [own])]
    return [answer for own in lists for answer in own], counts, weights
