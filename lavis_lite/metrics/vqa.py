"""Accuracy of answers by the protocol of VQA v2: an answer that three of ten people gave is right."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

# Restored in answers that lost their apostrophes.
CONTRACTIONS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't "
    "haven't he'd he'd've he's how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll let's ma'am "
    "mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't ow's'at shan't "
    "she'd've should've shouldn't shouldn't've somebody'd somebody'd've somebody'll somebody's someone'd "
    "someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've "
    "there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll "
    "what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll "
    "why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll "
    "you're you've"
)
COUNTING = "zero one two three four five six seven eight nine ten"
NUMBER_WORDS = {word: str(number) for number, word in enumerate(COUNTING.split())} | {"none": "0"}
ARTICLES = {"a", "an", "the"}
PEOPLE = 10  # asked for each question
ENOUGH = 3  # of them make an answer right
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_PERIOD = re.compile(r"\.(?!\d)")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")


def _without_some_apostrophes(word: str) -> Iterable[str]:
    positions = [position for position, letter in enumerate(word) if letter == "'"]
    for count in range(1, len(positions) + 1):
        for dropped in combinations(positions, count):
            yield "".join(letter for position, letter in enumerate(word) if position not in dropped)


RESTORED = {broken: word for word in CONTRACTIONS.split() for broken in _without_some_apostrophes(word)}


def normalize_answer(answer: str) -> str:
    """Return `answer` as the protocol compares it: no punctuation, articles or number words.

    >>> normalize_answer("The two dogs.")
    '2 dogs'
    >>> normalize_answer("dont know")
    "don't know"
    """
    words = _without_punctuation(" ".join(answer.split())).lower().split()
    words = [NUMBER_WORDS.get(word, word) for word in words]
    return " ".join(RESTORED.get(word, word) for word in words if word not in ARTICLES)


def _without_punctuation(text: str) -> str:
    joins = bool(_COMMA_IN_NUMBER.search(text))
    for mark in PUNCTUATION:
        # beside a space, or in a number, a mark is removed; else it becomes a space
        is_removed = f"{mark} " in text or f" {mark}" in text or joins
        text = text.replace(mark, "" if is_removed else " ")
    return _PERIOD.sub("", text)


def answer_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return how right `answer` is, 0 to 1, by what people answered.

    Of ten or more people: the mean, over leaving out each person in turn, of min(1, number who agree / 3).
    Of fewer: min(1, number who agree / three tenths of them), where one is always enough. There,
    references are normalized like the answer; the protocol only removes their punctuation.

    >>> answer_accuracy("a dog", ["Dog"]), answer_accuracy("cat", ["Dog"])
    (1.0, 0.0)

    Raises:
        ValueError: `references` is empty.
    """
    if not references:
        raise ValueError("there are no references to judge the answer by.")
    normalized = normalize_answer(answer)
    if len(references) < PEOPLE:
        agreeing = sum(normalize_answer(reference) == normalized for reference in references)
        return min(1.0, agreeing / max(1.0, len(references) * ENOUGH / PEOPLE))
    if len(set(references)) > 1:
        references = [_without_punctuation(reference) for reference in references]
    agreeing = sum(reference == normalized for reference in references)
    shares = (min(1.0, (agreeing - (reference == normalized)) / ENOUGH) for reference in references)
    return sum(shares) / len(references)


def vqa_metrics(
    answers: Mapping[int, str],
    references: Mapping[int, Sequence[str]],
    answer_types: Mapping[int, str] | None = None,
    question_types: Mapping[int, str] | None = None,
) -> dict[str, float]:
    """Return accuracies in percent: "agg_metrics" over all questions, and one for each type.

    Args:
        answers: question id -> answer.
        references: question id -> what people answered.
        answer_types: question id -> "yes/no", "number", "other".
        question_types: question id -> "what color is the", for example.
    """
    scores = {question: answer_accuracy(answers[question], references[question]) for question in answers}
    metrics = {"agg_metrics": _percent(scores.values())}
    for types, prefix in ((answer_types, ""), (question_types, "question: ")):
        groups: dict[str, list[float]] = defaultdict(list)
        for question, score in scores.items():
            if types and question in types:
                groups[types[question]].append(score)
        metrics |= {prefix + name: _percent(group) for name, group in sorted(groups.items())}
    return metrics


def direct_answer_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return A-OKVQA's accuracy of one answer: min(1, number of people who gave it / 3)."""
    return min(1.0, Counter(references)[answer] / 3)


def _percent(scores: Iterable[float]) -> float:
    scores = list(scores)
    return 100 * sum(scores) / len(scores)
