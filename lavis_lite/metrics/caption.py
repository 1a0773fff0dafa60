"""Score captions against references with COCO's metrics: BLEU, METEOR, ROUGE-L, CIDEr-D and SPICE.

BLEU, ROUGE-L and CIDEr need no Java; the tokens they count come from COCO's Java tokenizer or from ours.
METEOR and SPICE are Java programs. What cannot run here is left out with its reason, never replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Literal, get_args

from lavis_lite.common.registry import suggest
from lavis_lite.metrics import meteor, spice
from lavis_lite.metrics.java import Java, JavaMissingError, find_java
from lavis_lite.metrics.ptb_tokenizer import stanford_tokenizer, tokenize, tokenize_with_java

METRICS = ("BLEU", "METEOR", "ROUGE_L", "CIDEr", "SPICE")
JAVA_METRICS = ("METEOR", "SPICE")

_RESULT_KEYS = {metric: (metric,) for metric in METRICS} | {"BLEU": ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")}
_EXAMPLES_IN_ERRORS = 5


class NoWordsError(ValueError):
    """No reference of any image holds a word, so nothing can be scored; the message names the images."""


Tokenizer = Literal["auto", "java", "python"]
# Each image's references and its candidate, tokenised -> result key -> (over all images, of each image).
Scored = dict[str, tuple[float, list[float]]]


@dataclass
class CaptionScores:
    """What was measured, and by what.

    Attributes:
        scores: result key ("Bleu_4", "CIDEr") -> value over all images; CIDEr around 1, the rest 0 to 1.
        per_image: result key -> image -> value.
        tokenizer: "ptb-java" (COCO's own) or "ptb-python" (ours, tested against it).
        implementation: metric -> what computed it.
        unavailable: metric -> why it is missing and what to install.
        without_words: images whose references hold no word (only emoji, say): no caption can match them,
            and they score 0.
    """

    scores: dict[str, float]
    tokenizer: str
    per_image: dict[str, dict[Hashable, float]] = field(default_factory=dict)
    implementation: dict[str, str] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    without_words: list[Hashable] = field(default_factory=list)


def result_keys(metric: str) -> tuple[str, ...]:
    """Return the names under which the results of `metric` stand: four for BLEU, else one.

    Raises:
        ValueError: there is no such metric; the message names the nearest.
    """
    return _RESULT_KEYS[_canonical(metric)]


def available_metrics(metrics: Iterable[str] = METRICS) -> dict[str, str | None]:
    """Return for each metric None when it can run here, or else why not and what to do.

    Cheap: nothing is computed.

    Raises:
        ValueError: there is no such metric.
    """
    return {name: _problem(name) for name in _canonical_names(metrics)}


def tokenizer_problem(tokenizer: Tokenizer) -> str | None:
    """Return why `tokenizer` cannot run here and what to install, None when it can."""
    java = _java_for_tokens() if tokenizer == "java" else None
    return java if isinstance(java, str) else None


def score_captions(
    references: Mapping[Hashable, Sequence[str]],
    candidates: Mapping[Hashable, str],
    metrics: Sequence[str] = ("BLEU", "METEOR", "ROUGE_L", "CIDEr"),
    tokenizer: Tokenizer = "auto",
    timeout_seconds: float = 1800.0,
) -> CaptionScores:
    """Score one candidate caption an image against its references.

    The order of `references` is the order of computation, so it alone decides the last bits of a mean.

    Args:
        references: image -> one or more captions.
        candidates: image -> one caption, which may be empty.
        metrics: names of `METRICS`, in any case.
        tokenizer: "auto" takes Java's where Java is installed.
        timeout_seconds: limit of each Java program.

    Raises:
        ValueError: unknown metric, images without references or candidate, an empty list of references.
        NoWordsError: no reference holds a word.
        JavaMissingError: `tokenizer` is "java" and there is none.
        JavaProgramError: a Java program failed or hung. No score is made up for it.
    """
    names = _canonical_names(metrics)
    _check_captions(references, candidates)
    if tokenizer not in ("auto", "java", "python"):
        raise ValueError(
            f"There is no tokenizer {tokenizer!r}.{suggest(str(tokenizer), get_args(Tokenizer))}"
        )
    problems = {name: problem for name in names if (problem := _problem(name)) is not None}
    maker, texts, captions = _tokenize(references, candidates, tokenizer, timeout_seconds)
    without_words = [image for image, of_image in zip(references, texts, strict=True) if not any(of_image)]
    if len(without_words) == len(references):
        count = sum(map(len, references.values()))
        raise NoWordsError(
            f"None of the {count} references holds a word to score against ({_listed(without_words)})."
        )
    result = CaptionScores(scores={}, tokenizer=maker, unavailable=problems, without_words=without_words)
    for name in (name for name in names if name not in problems):
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


def _problem(metric: str) -> str | None:
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
    _refuse(
        [key for key, texts in references.items() if isinstance(texts, str) or not _are_texts(texts)],
        "entries of references are not a list of texts",
    )
    no_texts = [key for key, text in candidates.items() if not isinstance(text, str)]
    _refuse(no_texts, "candidates are not a text")


def _are_texts(texts: Sequence[str]) -> bool:
    return all(isinstance(text, str) for text in texts)


def _refuse(keys: list[Hashable], fault: str) -> None:
    if keys:
        raise ValueError(f"{len(keys)} {fault}: {_listed(keys)}.")


def _listed(keys: Sequence[Hashable]) -> str:
    more = ", ..." if len(keys) > _EXAMPLES_IN_ERRORS else ""
    return ", ".join(repr(key) for key in keys[:_EXAMPLES_IN_ERRORS]) + more


def _tokenize(
    references: Mapping[Hashable, Sequence[str]],
    candidates: Mapping[Hashable, str],
    tokenizer: Tokenizer,
    timeout_seconds: float,
) -> tuple[str, list[list[str]], list[str]]:
    """Return the maker's name, the tokenised references of each image and its candidate."""
    given = [text for texts in references.values() for text in texts]
    # One run for both. The empty line keeps the first candidate from being the context of the last reference.
    lines = [*given, "", *(candidates[key] for key in references)]
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
    """Return the Java that can tokenise, or why there is none."""
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
        program = meteor if metric == "METEOR" else spice
        compute = meteor.score_meteor if metric == "METEOR" else spice.score_spice
        scored = {metric: compute(java, references, candidates, timeout_seconds)}
        return f"{program.IMPLEMENTATION} on Java {java.version}", scored
    compute, remark = _PYTHON_METRICS[metric]
    # pycocoevalcap's scorers take {image: texts} for both sides.
    scored = compute(dict(enumerate(references)), {index: [text] for index, text in enumerate(candidates)})
    return f"pycocoevalcap {version('pycocoevalcap')}{remark}", scored


def _bleu(references: dict[int, list[str]], candidates: dict[int, list[str]]) -> Scored:
    from pycocoevalcap.bleu.bleu import Bleu

    scores, of_each = Bleu(4).compute_score(references, candidates, verbose=0)
    return {
        key: (float(score), list(map(float, each)))
        for key, score, each in zip(_RESULT_KEYS["BLEU"], scores, of_each, strict=True)
    }


def _rouge_l(references: dict[int, list[str]], candidates: dict[int, list[str]]) -> Scored:
    from pycocoevalcap.rouge.rouge import Rouge

    score, of_each = Rouge().compute_score(references, candidates)
    return {"ROUGE_L": (float(score), list(map(float, of_each)))}


def _cider(references: dict[int, list[str]], candidates: dict[int, list[str]]) -> Scored:
    from pycocoevalcap.cider.cider import Cider

    score, of_each = Cider().compute_score(references, candidates)
    return {"CIDEr": (float(score), list(map(float, of_each)))}


_PYTHON_METRICS: dict[str, tuple[Callable[[dict, dict], Scored], str]] = {
    "BLEU": (_bleu, ""),
    "ROUGE_L": (_rouge_l, ""),
    "CIDEr": (_cider, " (CIDEr-D)"),  # what COCO calls CIDEr has the length penalty and the clipping
}
