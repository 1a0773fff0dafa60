"""Settings of generating, answering and ranking, for models, tasks and commands alike."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lavis_lite.common.config.schema import parse

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


@dataclass
class GenerationSettings:
    """Settings of generating captions.

    Attributes:
        use_nucleus_sampling: sample (top-p) instead of searching with beams.
        num_beams: beams of each image; 1 is greedy search.
        max_length: maximum tokens of a caption, prompt included.
        min_length: minimum tokens of a caption, prompt included.
        top_p: sample from the smallest set of tokens that holds this share of the probability.
        top_k: sample from at most this many tokens; 0 for no limit.
        temperature: divides the logits before sampling.
        repetition_penalty: makes tokens that the text already holds less likely; 1 changes nothing.
        length_penalty: exponent of the length by which a finished beam's score is divided.
        no_repeat_ngram_size: no n-gram of this size occurs twice; 0 allows repetition.
        early_stopping: when beam search stops. True: as soon as `num_beams` beams are finished; False:
            when no running beam can beat the worst finished one at its present length; "never": when
            none can beat it at any length it could still reach.
    """

    use_nucleus_sampling: bool = False
    num_beams: int = 3
    max_length: int = 30
    min_length: int = 10
    top_p: float = 0.9
    top_k: int = 50
    temperature: float = 1.0
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    early_stopping: bool | Literal["never"] = False

    def check(self) -> list[tuple[str, str]]:
        """Return an error for each value that no search can follow."""
        rules = [
            ("num_beams", self.num_beams >= 1, "must be at least 1"),
            ("max_length", self.max_length >= 2, "must be at least 2"),
            ("min_length", 0 <= self.min_length <= self.max_length, "must lie between 0 and max_length"),
            ("top_p", 0 < self.top_p <= 1, "must lie in (0, 1]"),
            ("top_k", self.top_k >= 0, "must be 0 (no limit) or more"),
            ("temperature", self.temperature > 0, "must be above 0"),
            ("repetition_penalty", self.repetition_penalty > 0, "must be above 0"),
            ("no_repeat_ngram_size", self.no_repeat_ngram_size >= 0, "must be 0 (off) or more"),
        ]
        return [(key, f"{text}, found {getattr(self, key)!r}.") for key, holds, text in rules if not holds]


# Names of generation settings in the run section, where LAVIS calls them otherwise.
_RUN_KEYS = {"max_length": "max_len", "min_length": "min_len"}

# The generation settings as keys of the run section, all None: a base class of a task's `Config`.
GenerationKeys: Any = dataclasses.make_dataclass(
    "GenerationKeys",
    [
        (_RUN_KEYS.get(name, name), hint | None, None)
        for name, hint in typing.get_type_hints(GenerationSettings).items()
    ],
    namespace={"__doc__": "Keys of the run section that override the model's `GenerationSettings`."},
)


def generation_keys_set(config: Any) -> dict[str, Any]:
    """Return the generation settings that `config`, an instance of `GenerationKeys`, sets."""
    values = {
        field.name: getattr(config, _RUN_KEYS.get(field.name, field.name))
        for field in dataclasses.fields(GenerationSettings)
    }
    return {name: value for name, value in values.items() if value is not None}


@dataclass
class AnswerSettings:
    """Settings of answering questions.

    Attributes:
        inference_method: "rank" takes the likeliest answer of a list, "generate" writes one freely.
        num_ans_candidates: answers of the list that are scored as a whole: those whose first tokens are
            likeliest.
        num_beams: beams of each question, of "generate".
        max_len: maximum tokens of a generated answer, [DEC] included.
        min_len: minimum tokens of a generated answer, [DEC] included.
    """

    inference_method: Literal["rank", "generate"] = "rank"
    num_ans_candidates: int = 128
    num_beams: int = 3
    max_len: int = 10
    min_len: int = 1

    def check(self) -> list[tuple[str, str]]:
        """Return an error for each value that no model can follow."""
        return _errors_below_1(self, "num_ans_candidates")


@dataclass
class RankingSettings:
    """Settings of ranking the images and texts of a split against each other.

    Attributes:
        k_test: candidates of each image and of each text that the matching head re-ranks; all of them
            where there are fewer.
        rerank: whether to re-rank; if not, the similarity of the embeddings decides.
        rerank_max_tokens: text tokens that are read at once; bounds the memory.
        text_batch_size: texts that are embedded at once.
        rerank_cache_bytes: memory for the hidden states of images; where they need more, every image is
            encoded a second time for re-ranking.
    """

    k_test: int = 256
    rerank: bool = True
    rerank_max_tokens: int = 1 << 15
    text_batch_size: int = 256
    rerank_cache_bytes: int = 2 << 30

    def check(self) -> list[tuple[str, str]]:
        """Return an error for each value that no ranking can follow."""
        return _errors_below_1(self, "k_test", "rerank_max_tokens", "text_batch_size")


def _errors_below_1(settings: object, *keys: str) -> list[tuple[str, str]]:
    return [
        (key, f"must be at least 1, found {getattr(settings, key)!r}.")
        for key in keys
        if getattr(settings, key) < 1
    ]


def updated(settings: Settings, changes: dict[str, Any], where: str) -> Settings:
    """Return `settings` with those of `changes` that are not None, checked.

    Args:
        where: what the settings belong to; stands before each key in messages.

    Raises:
        ConfigError: an unknown key, a wrong type or a value out of range.
    """
    changes = {key: value for key, value in changes.items() if value is not None}
    return parse(type(settings), {**dataclasses.asdict(settings), **changes}, where=where)
