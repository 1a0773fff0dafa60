"""Tokenize captions as COCO's metrics do: Penn Treebank style, lower case, punctuation dropped.

Stanford's program, which needs Java, and `ptb_rules` make the same tokens.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lavis_lite.metrics.java import Java, JavaProgramError, package_file, run_java
from lavis_lite.metrics.ptb_rules import RULES, UNCLOSED_TAG, Writer

# What COCO drops. Brackets stay: COCO's list has them in upper case and looks after lowering.
DROPPED_TOKENS = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

# Everything that some program takes for the end of a line, and surrogates, which are not text.
_LINE_BREAKS = re.compile(r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029\ud800-\udfff]")

# A word that no rule splits or extends: the most common token.
_SIMPLE_WORD = re.compile(r"(?!(?i:cannot|gonna|wanna|gotta|lemme|gimme)[ \n])[A-Za-z]+(?=[ \n])")


def clean_caption(caption: str) -> str:
    """Return `caption` as one line, so that a file of captions has as many lines as captions."""
    caption = _LINE_BREAKS.sub(" ", caption)
    return UNCLOSED_TAG.sub("< ", caption) if "<" in caption else caption


def tokenize(captions: Sequence[str]) -> list[str]:
    """Return the tokens of each caption, joined by blanks, without Java.

    As in Stanford's program, the start of the next caption decides in two rare cases whether a period at
    the end of a caption belongs to its last word ("the letter A." before "The ...").
    """
    lines = [clean_caption(caption) for caption in captions]
    following = [*lines[1:], ""]
    return [_tokenize_line(line, after) for line, after in zip(lines, following, strict=True)]


def stanford_tokenizer() -> Path:
    """Return the path of Stanford's program in pycocoevalcap.

    Raises:
        JavaMissingError: it does not exist.
    """
    return package_file("tokenizer", "stanford-corenlp-3.4.1.jar")


def tokenize_with_java(java: Java, captions: Sequence[str], timeout_seconds: float) -> list[str]:
    """Return the tokens of each caption, joined by blanks, made by Stanford's program.

    Raises:
        JavaProgramError: it failed, hung, or did not write one line per caption.
    """
    lines = [clean_caption(caption) for caption in captions]
    with tempfile.TemporaryDirectory(prefix="lavis_lite_ptb_") as folder:
        file = Path(folder, "captions.txt")
        file.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8"))
        arguments = ["-cp", str(stanford_tokenizer()), "edu.stanford.nlp.process.PTBTokenizer"]
        arguments += ["-preserveLines", "-lowerCase", "-encoding", "UTF-8", str(file)]
        written = run_java(
            java, arguments, program="Stanford's PTBTokenizer", timeout_seconds=timeout_seconds
        )
    tokenized = written.split("\n")
    if tokenized.pop() != "" or len(tokenized) != len(lines):
        raise JavaProgramError(
            f"Stanford's PTBTokenizer wrote {len(tokenized)} lines for {len(lines)} captions; "
            f'no score is made from them. Set tokenizer to "python" to do without it.'
        )
    return [drop_punctuation(line) for line in tokenized]


def drop_punctuation(line: str) -> str:
    """Return a line of lower-case tokens without those that COCO drops."""
    return " ".join(token for token in line.rstrip().split(" ") if token not in DROPPED_TOKENS)


def _tokenize_line(line: str, after: str) -> str:
    text = f"{line}\n{after}"
    tokens: list[str] = []
    position = 0
    while position < len(line):
        word = _SIMPLE_WORD.match(text, position)
        if word is not None:
            tokens.append(word[0].lower())
            position = word.end()
            continue
        token, write = _longest_match(text, position)
        if written := write(token):
            tokens.append(written.lower())
        position += len(token)
    return drop_punctuation(" ".join(tokens))


def _longest_match(text: str, position: int) -> tuple[str, Writer]:
    matches = ((pattern.match(text, position), write) for pattern, write in RULES)
    matched = [(match, write) for match, write in matches if match is not None]
    best, write = max(matched, key=lambda candidate: candidate[0].end())  # of equal ones, the first
    return best[best.lastindex or 0], write
