"""Captions and questions as BLIP's text models saw them in training."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lavis_lite.common.registry import registry
from lavis_lite.processors.base_processor import BaseProcessor

_PUNCTUATION = re.compile(r'[.!"()*#:;~]')
_WHITESPACE_BUT_SPACE = re.compile(r"[^\S ]")
# Half of a UTF-16 pair, as cut JSON escapes leave it: no tokenizer takes it.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@registry.register_processor("blip_caption")
class BlipCaptionProcessor(BaseProcessor):
    """Clean a caption and put the prompt in front of it.

    >>> BlipCaptionProcessor.build(prompt="a picture of ")("Two dogs (brown);  one\\u2028CAT.")
    'a picture of two dogs brown one cat'
    """

    @dataclass
    class Config:
        """Settings of `BlipCaptionProcessor`.

        Args:
            prompt: put before each caption as it stands, so it ends in a space.
            max_words: what comes after so many words is cut off; the prompt does not count.
        """

        prompt: str = ""
        max_words: int = 50

        def check(self) -> list[tuple[str, str]]:
            """Return what is impossible among the values."""
            return _check_max_words(self.max_words)

    config: Config

    def __call__(self, caption: str) -> str:
        """Return the prompt followed by the cleaned caption."""
        return self.config.prompt + self.pre_caption(caption)

    def pre_caption(self, caption: str) -> str:
        """Return `caption` in lower case, punctuation as spaces, one space between its words, cut."""
        words = _PUNCTUATION.sub(" ", _checked(caption).lower()).split()
        return " ".join(words[: self.config.max_words])


@registry.register_processor("blip_question")
class BlipQuestionProcessor(BaseProcessor):
    """Clean a question.

    >>> BlipQuestionProcessor.build()('What is "this": a T.V.? ')
    'what is this a tv?'
    """

    @dataclass
    class Config:
        """Settings of `BlipQuestionProcessor`.

        Args:
            max_words: what comes after so many words is cut off.
        """

        max_words: int = 50

        def check(self) -> list[tuple[str, str]]:
            """Return what is impossible among the values."""
            return _check_max_words(self.max_words)

    config: Config

    def __call__(self, question: str) -> str:
        """Return the cleaned question."""
        return self.pre_question(question)

    def pre_question(self, question: str) -> str:
        """Return `question` in lower case, without punctuation but its question mark, cut."""
        text = _PUNCTUATION.sub("", _checked(question).lower())
        # Spaces between words are kept as they are, for BLIP kept them.
        words = _WHITESPACE_BUT_SPACE.sub(" ", text).rstrip(" ").split(" ")
        return " ".join(words[: self.config.max_words])


def _check_max_words(max_words: int) -> list[tuple[str, str]]:
    return [] if max_words > 0 else [("max_words", f"must be at least 1, found {max_words}.")]


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"expected a text, found {type(text).__name__}: {str(text)[:80]!r}")
    return _LONE_SURROGATE.sub("\ufffd", text)
