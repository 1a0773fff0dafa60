"""The WordPiece tokenizer of BLIP: BERT's, plus [DEC] and [ENC], which tell the text model its role."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from transformers import BertTokenizerFast

from lavis_lite.common.files import first_line
from lavis_lite.models.weights.hub import VOCABULARY_FILES, HubError, has_vocabulary, hub_tokenizer

DEFAULT_TOKENIZER = "bert-base-uncased"
DECODER_TOKEN = "[DEC]"
ENCODER_TOKEN = "[ENC]"
PUBLISHED_VOCABULARY = 30524  # entries of the default tokenizer with both, as in every published checkpoint
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_REMEDY = (
    'Name a folder that holds vocab.txt, or "shapes" for the small vocabulary that ships with the library.'
)
# Vocabularies that ship with the library, by name.
BUNDLED = Path(__file__).parents[2] / "configs" / "tokenizers"


class TokenizerError(ValueError):
    """A vocabulary that cannot be had; the message says which and what to do."""


def load_tokenizer(name: str = DEFAULT_TOKENIZER) -> BertTokenizerFast:
    """Return the tokenizer called `name` with [DEC] and [ENC] added behind its vocabulary.

    With the default vocabulary their ids are 30522 and 30523, as in every published checkpoint.

    Args:
        name: a hub name, a folder with ``vocab.txt`` or ``tokenizer.json``, or "shapes", the small
            vocabulary that ships with the library and knows the drawn data sets.

    Raises:
        TokenizerError: neither a folder nor a hub repository that can be reached; or no vocabulary in it.
    """
    folder = _folder_of(name)
    if not has_vocabulary(folder):
        # transformers would make a tokenizer that knows no word
        raise TokenizerError(
            f"tokenizer {name!r}: {folder} holds no {' and no '.join(VOCABULARY_FILES)}. {_REMEDY}"
        )
    try:
        tokenizer = BertTokenizerFast.from_pretrained(str(folder))
        tokenizer("a")  # a vocabulary without [UNK] fails only here
    except Exception as error:  # of damaged files transformers raises errors of many kinds
        raise TokenizerError(
            f"tokenizer {name!r}: cannot be read ({first_line(error)}). {_REMEDY}"
        ) from error
    tokenizer.add_special_tokens({"bos_token": DECODER_TOKEN})
    tokenizer.add_special_tokens({"additional_special_tokens": [ENCODER_TOKEN]})
    return tokenizer


def _folder_of(name: str) -> Path:
    for folder in (BUNDLED / name, Path(name).expanduser()):
        if folder.is_dir():
            return folder
    try:
        return hub_tokenizer(name)
    except HubError as error:
        raise TokenizerError(f"tokenizer {error} {_REMEDY}") from error


def build_vocabulary(captions: Iterable[str], folder: str | Path, vocab_size: int = 30522) -> Path:
    """Learn a WordPiece vocabulary from `captions`, write ``vocab.txt`` into `folder`, return the folder.

    For models trained from nothing on data of one's own, where BERT's vocabulary is out of reach
    or mostly unused. Every lower-case Latin letter and digit is kept, so that no plain English word
    becomes [UNK].
    """
    from tokenizers import BertWordPieceTokenizer

    learner = BertWordPieceTokenizer(lowercase=True)
    learner.train_from_iterator(
        captions, vocab_size=vocab_size, min_frequency=1, initial_alphabet=list(ALPHABET), show_progress=False
    )
    pieces = sorted(learner.get_vocab(), key=learner.get_vocab().__getitem__)
    pieces += [piece for piece in (f"##{letter}" for letter in ALPHABET) if piece not in set(pieces)]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return folder
