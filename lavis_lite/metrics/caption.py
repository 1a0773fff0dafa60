"""Score captions against references with COCO's metrics: BLEU, METEOR, ROUGE-L, CIDEr-D and SPICE.

BLEU, ROUGE-L and CIDEr run without Java; their tokens come from COCO's Java tokenizer or from ours.
METEOR and SPICE are Java programs. A metric that cannot run is left out with the reason, never replaced.
"""

from __future__ import annotations

import importlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Literal, get_args

from lavis_lite.common.registry import suggest
from lavis_lite.metrics import meteor, spice
from lavis_lite.metrics.java import Java, JavaMissingError, find_java
from lavis_lite.metrics.ptb_tokenizer import stanford_tokenizer, tokenize, tokenize_with_java

METRICS = ("BLEU", "METEOR", "ROUGE_L", "CIDEr", "SPICE")
JAVA_METRICS = ("METEOR", "SPICE")

# metric -> module and class of pycocoevalcap, what it is constructed with, options of compute_score
_PYTHON_METRICS: dict[str, tuple[str, str, tuple[int, ...], dict[str, int]]] = {
    "BLEU": ("bleu.bleu", "Bleu", (4,), {"verbose": 0}),
    "ROUGE_L": ("rouge.rouge", "Rouge", (), {}),
    "CIDEr": ("cider.cider", "Cider", (), {}),
}
_RESULT_KEYS = {metric: (metric,) for metric in METRICS} | {"BLEU": ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")}
_EXAMPLES_IN_ERRORS = 5


class NoWordsError(ValueError):
    """No reference contains a word, so that nothing can be scored; the message names the images."""


Tokenizer = Literal["auto", "java", "python"]
# result key -> (over all images, of each image)
Scored = dict[str, tuple[float, list[float]]]


@dataclass
class CaptionScores:
    """Scores, and what computed them.

    Attributes:
        scores: result key ("Bleu_4", "CIDEr") -> value over all images; CIDEr around 1, the rest 0 to 1.
        per_image: result key -> image -> value.
        tokenizer: "ptb-java" (COCO's own) or "ptb-python" (ours, tested against it).
        implementation: metric -> what computed it.
        unavailable: metric -> why it is missing and what to install.
        without_words: images whose references contain no word (only emoji, say); they score 0, since no
            caption can match them.
    """

    scores: dict[str, float]
    tokenizer: str
    per_image: dict[str, dict[Hashable, float]] = field(default_factory=dict)
    implementation: dict[str, str] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    without_words: list[Hashable] = field(default_factory=list)


def result_keys(metric: str) -> tuple[str, ...]:
    """Return the names of the results of `metric`: four for BLEU, else one.

    Raises:
        ValueError: unknown metric; the message names the nearest.
    """
    return _RESULT_KEYS[_canonical(metric)]


def available_metrics(metrics: Iterable[str] = METRICS) -> dict[str, str | None]:
    """Return for each metric None if it can run here, else why not and what to do; nothing is computed.

    Raises:
        ValueError: unknown metric.
    """
    return {name: _why_not(name) for name in _canonical_names(metrics)}


def tokenizer_problem(tokenizer: Tokenizer) -> str | None:
    """Return why `tokenizer` cannot run here and what to install, or None if it can."""
    java = _java_for_tokens() if tokenizer == "java" else None
    return java if isinstance(java, str) else None


def score_captions(
    references: Mapping[Hashable, Sequence[str]],
    candidates: Mapping[Hashable, str],
    metrics: Sequence[str] = ("BLEU", "METEOR", "ROUGE_L", "CIDEr"),
    tokenizer: Tokenizer = "auto",
    timeout_seconds: float = 1800.0,
) -> CaptionScores:
    """Score one caption per image against its references.

    Scores are summed in the order of `references`, which decides the last bits of a mean.

    Args:
        references: image -> one or more captions.
        candidates: image -> one caption, which may be empty.
        metrics: names of `METRICS`, in any case.
        tokenizer: "auto" uses Java's where Java is installed.
        timeout_seconds: limit of each Java program.

    Raises:
        ValueError: unknown metric, images without references or candidate, an empty list of references.
        NoWordsError: no reference contains a word.
        JavaMissingError: `tokenizer` is "java" and Java is missing.
        JavaProgramError: a Java program failed or hung.
    """
    names = _canonical_names(metrics)
    _check_captions(references, candidates)
    if tokenizer not in ("auto", "java", "python"):
        raise ValueError(
            f"There is no tokenizer {tokenizer!r}.{suggest(str(tokenizer), get_args(Tokenizer))}"
        )
    unavailable = {name: reason for name in names if (reason := _why_not(name)) is not None}
    maker, texts, captions = _tokenize(references, candidates, tokenizer, timeout_seconds)
    without_words = [image for image, of_image in zip(references, texts, strict=True) if not any(of_image)]
    if len(without_words) == len(references):
        count = sum(map(len, references.values()))
        raise NoWordsError(
            f"None of the {count} references holds a word to score against ({_listed(without_words)})."
        )
    result = CaptionScores(scores={}, tokenizer=maker, unavailable=unavailable, without_words=without_words)
    for name in [name for name in names if name not in unavailable]:
        result.implementation[name], scored = _score(name, texts, captions, timeout_seconds)
        for key, (score, of_each) in scored.items():
            result.scores[key] = score
            result.per_image[key] = dict(zip(references, of_each, strict=True))
    return result


def _canonical(metric: str) -> str:
    by_lower_case = {name.lower(): name for name in METRICS}
    try:
        return by_lower_case[metric.lower()]
    except (KeyError, AttributeError):
        raise ValueError(f"No metric is called {metric!r}.{suggest(str(metric), METRICS)}") from None


def _canonical_names(metrics: Iterable[str]) -> list[str]:
    if isinstance(metrics, str):
        raise ValueError(f"metrics: expected a list of names, found the text {metrics!r}.")
    return list(dict.fromkeys(map(_canonical, metrics)))


def _why_not(metric: str) -> str | None:
    if metric not in JAVA_METRICS:
        return None
    try:
        java = find_java()
        if metric == "SPICE":
            return spice.spice_problem(java)
        meteor.meteor_files()
    except JavaMissingError as error:
        return f"{metric} needs Java: {error}"
    return None


def _check_captions(references: Mapping, candidates: Mapping) -> None:
    if not references and not candidates:
        raise ValueError("There are no captions to score.")
    _refuse([key for key in candidates if key not in references], "candidates have no references")
    _refuse([key for key in references if key not in candidates], "images have references but no candidate")
    _refuse([key for key, texts in references.items() if len(texts) == 0], "lists of references are empty")
    no_list = [
        key
        for key, texts in references.items()
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts)
    ]
    _refuse(no_list, "entries of references are not a list of texts")
    no_text = [key for key, text in candidates.items() if not isinstance(text, str)]
    _refuse(no_text, "candidates are not a text")


def _refuse(keys: list[Hashable], reason: str) -> None:
    if keys:
        raise ValueError(f"{len(keys)} {reason}: {_listed(keys)}.")


def _listed(keys: Sequence[Hashable]) -> str:
    more = ", ..." if len(keys) > _EXAMPLES_IN_ERRORS else ""
    return ", ".join(repr(key) for key in keys[:_EXAMPLES_IN_ERRORS]) + more


def _tokenize(
    references: Mapping[Hashable, Sequence[str]],
    candidates: Mapping[Hashable, str],
    tokenizer: Tokenizer,
    timeout_seconds: float,
) -> tuple[str, list[list[str]], list[str]]:
    """Return the name of the tokenizer, and the tokenized references and candidate of each image."""
    # One run for both; the empty line separates the first candidate from the last reference.
    lines = [
        *(text for texts in references.values() for text in texts),
        "",
        *(candidates[key] for key in references),
    ]
    java = _java_for_tokens() if tokenizer != "python" else None
    if isinstance(java, Java):
        maker, tokenized = "ptb-java", tokenize_with_java(java, lines, timeout_seconds)
    elif tokenizer == "java":
        raise JavaMissingError(f'tokenizer is "java", but {java}')
    else:
        maker, tokenized = "ptb-python", tokenize(lines)
    remaining = iter(tokenized)
    texts = [[next(remaining) for _ in texts] for texts in references.values()]
    next(remaining)
    return maker, texts, list(remaining)


def _java_for_tokens() -> Java | str:
    """Return the Java that runs the tokenizer, or why it cannot."""
    try:
        stanford_tokenizer()
        return find_java()
    except JavaMissingError as error:
        return str(error)


def _score(
    metric: str, references: list[list[str]], candidates: list[str], timeout_seconds: float
) -> tuple[str, Scored]:
    """Return what computed `metric`, and its results."""
    if metric in JAVA_METRICS:
        java = find_java()
        program, compute = (
            (meteor.IMPLEMENTATION, meteor.score_meteor)
            if metric == "METEOR"
            else (spice.IMPLEMENTATION, spice.score_spice)
        )
        results = compute(java, references, candidates, timeout_seconds)
        return f"{program} on Java {java.version}", {metric: results}
    module, name, arguments, options = _PYTHON_METRICS[metric]
    scorer = getattr(importlib.import_module(f"pycocoevalcap.{module}"), name)(*arguments)
    # pycocoevalcap takes {image: texts} on both sides.
    captions = {index: [text] for index, text in enumerate(candidates)}
    scores, of_each = scorer.compute_score(dict(enumerate(references)), captions, **options)
    if metric != "BLEU":
        scores, of_each = [scores], [of_each]
    # COCO's CIDEr has a length penalty and clipping.
    remark = " (CIDEr-D)" if metric == "CIDEr" else ""
    return f"pycocoevalcap {version('pycocoevalcap')}{remark}", {
        key: (float(score), [float(value) for value in values])
        for key, score, values in zip(_RESULT_KEYS[metric], scores, of_each, strict=True)
    }
