"""The WordPiece tokenizer of BLIP: BERT's, plus [DEC] and [ENC], which tell the text model its role."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from transformers import BertTokenizer

from lavis_lite.common.files import first_line
from lavis_lite.models.weights.hub import VOCABULARY_FILES, HubError, has_vocabulary, hub_tokenizer

DEFAULT_TOKENIZER = "bert-base-uncased"
DECODER_TOKEN = "[DEC]"
ENCODER_TOKEN = "[ENC]"
PUBLISHED_VOCABULARY = 30524  # entries of the default tokenizer with both, as in every published checkpoint
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_HINT = (
    'Name a folder that holds vocab.txt, or "shapes" for the small vocabulary that ships with the library.'
)
# Vocabularies that ship with the library, by name.
BUNDLED = Path(__file__).parents[2] / "configs" / "tokenizers"


class TokenizerError(ValueError):
    """An unavailable or unusable vocabulary; the message says which and what to do."""


def load_tokenizer(name: str = DEFAULT_TOKENIZER) -> BertTokenizer:
    """Return the tokenizer called `name` with [DEC] and [ENC] appended to its vocabulary.

    With the default vocabulary their ids are 30522 and 30523, as in every published checkpoint.

    Args:
        name: a hub name, a folder with ``vocab.txt`` or ``tokenizer.json``, or "shapes", the small
            vocabulary for the drawn data sets that ships with the library.

    Raises:
        TokenizerError: neither a folder nor an available hub repository; or it holds no vocabulary.
    """
    folder = next((path for path in (BUNDLED / name, Path(name).expanduser()) if path.is_dir()), None)
    if folder is None:
        try:
            folder = hub_tokenizer(name)
        except HubError as error:
            raise TokenizerError(f"tokenizer {error} {_HINT}") from error
    if not has_vocabulary(folder):
        # transformers would build a tokenizer without any word
        raise TokenizerError(
            f"tokenizer {name!r}: {folder} holds no {' and no '.join(VOCABULARY_FILES)}. {_HINT}"
        )
    try:
        tokenizer = BertTokenizer.from_pretrained(str(folder))
        tokenizer("a")  # a vocabulary without [UNK] fails only here
    except Exception as error:  # transformers raises errors of many types for damaged files
        raise TokenizerError(f"tokenizer {name!r}: cannot be read ({first_line(error)}). {_HINT}") from error
    tokenizer.add_special_tokens({"bos_token": DECODER_TOKEN})
    tokenizer.add_special_tokens({"additional_special_tokens": [ENCODER_TOKEN]})
    return tokenizer


def build_vocabulary(captions: Iterable[str], folder: str | Path, vocab_size: int = 30522) -> Path:
    """Learn a WordPiece vocabulary from `captions`, write ``vocab.txt`` into `folder`, return the folder.

    Use it to train from scratch when BERT's vocabulary is unavailable or mostly unused. It contains every
    lower-case Latin letter and digit, so that no plain English word becomes [UNK].
    """
    from tokenizers import BertWordPieceTokenizer

    learner = BertWordPieceTokenizer(lowercase=True)
    learner.train_from_iterator(
        captions, vocab_size=vocab_size, min_frequency=1, initial_alphabet=list(ALPHABET), show_progress=False
    )
    vocabulary = learner.get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    pieces += [piece for piece in (f"##{letter}" for letter in ALPHABET) if piece not in vocabulary]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return folder
