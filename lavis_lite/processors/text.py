"""Captions and questions as BLIP's text models saw them in training."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lavis_lite.common.registry import registry
from lavis_lite.processors.base_processor import BaseProcessor

_PUNCTUATION = re.compile(r'[.!"()*#:;~]')
_WHITESPACE_BUT_SPACE = re.compile(r"[^\S ]")
# Half of a UTF-16 pair, as in a JSON escape that was cut; no tokenizer accepts it.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class _TextProcessor(BaseProcessor):
    """Base of the text processors: the limit on words."""

    @dataclass
    class Config(BaseProcessor.Config):
        """Settings of a text processor.

        Attributes:
            max_words: maximum words of a text, its prompt not counted; the rest is cut off.
        """

        max_words: int = 50

        def check(self) -> list[tuple[str, str]]:
            """Return an error for each impossible value."""
            if self.max_words > 0:
                return []
            return [("max_words", f"must be at least 1, found {self.max_words}.")]

    config: Config


@registry.register_processor("blip_caption")
class BlipCaptionProcessor(_TextProcessor):
    """Cleans a caption and puts the prompt in front of it.

    >>> BlipCaptionProcessor.build(prompt="a picture of ")("Two dogs (brown);  one\\u2028CAT.")
    'a picture of two dogs brown one cat'
    """

    @dataclass
    class Config(_TextProcessor.Config):
        """Settings of `BlipCaptionProcessor`.

        Attributes:
            prompt: text before each caption; it should end in a space.
        """

        prompt: str = ""

    config: Config

    def __call__(self, caption: str) -> str:
        """Return the prompt followed by the cleaned caption."""
        return self.config.prompt + self.pre_caption(caption)

    def pre_caption(self, caption: str) -> str:
        """Return `caption` in lower case, without punctuation, with single spaces, cut to `max_words`."""
        words = _PUNCTUATION.sub(" ", _checked(caption).lower()).split()
        return " ".join(words[: self.config.max_words])


@registry.register_processor("blip_question")
class BlipQuestionProcessor(_TextProcessor):
    """Cleans a question.

    >>> BlipQuestionProcessor.build()('What is "this": a T.V.? ')
    'what is this a tv?'
    """

    def __call__(self, question: str) -> str:
        """Return the cleaned question."""
        return self.pre_question(question)

    def pre_question(self, question: str) -> str:
        """Return `question` in lower case, without punctuation but "?", cut to `max_words`."""
        text = _PUNCTUATION.sub("", _checked(question).lower())
        # Repeated spaces stay, as in BLIP.
        words = _WHITESPACE_BUT_SPACE.sub(" ", text).rstrip(" ").split(" ")
        return " ".join(words[: self.config.max_words])


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"expected a text, found {type(text).__name__}: {str(text)[:80]!r}")
    return _LONE_SURROGATE.sub("\ufffd", text)
