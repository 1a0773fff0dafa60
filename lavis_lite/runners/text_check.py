"""Warnings about texts of a data set that are truncated, or that the vocabulary does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any

from torch import nn

TEXT_KEYS = ("caption", "question", "sentence")
EXAMINED = 1000
# Of the texts; a smaller share is rare characters, which need no warning.
UNKNOWN_SHARE = 0.1


def text_warnings(dataset: Any, model: nn.Module) -> Iterator[str]:
    """Yield warnings if the first texts of `dataset` are too long for the model, or unknown to it."""
    tokenizer = getattr(model, "tokenizer", None)
    longest = getattr(model, "text_lengths", {}).get("text_input")
    texts = list(islice(_texts(dataset), EXAMINED))
    if tokenizer is None or longest is None or not texts:
        return
    processor = getattr(dataset, "text_processor", str)
    processed = [processor(text) for text in texts]
    tokens = tokenizer(processed, truncation=False).input_ids
    words = getattr(getattr(processor, "config", None), "max_words", None)
    limits = {
        f"model.max_txt_len ({longest} tokens)": sum(len(ids) > longest for ids in tokens),
        f"max_words of the text processor ({words} words)": sum(
            words is not None and len(text.split()) > words for text in texts
        ),
    }
    for limit, count in limits.items():
        if count:
            yield f"{count} of the first {len(texts)} texts are longer than {limit} and are cut there."
    # Without the prompt, which every text starts with.
    prompt = getattr(getattr(processor, "config", None), "prompt", "")
    tokens = tokenizer([text.removeprefix(prompt) for text in processed], truncation=False).input_ids
    unknown = [text for text, ids in zip(texts, tokens, strict=True) if tokenizer.unk_token_id in ids]
    if len(unknown) > UNKNOWN_SHARE * len(texts):
        yield (
            f"{len(unknown)} of the first {len(texts)} texts have words that are not in the vocabulary and "
            f"are read as {tokenizer.unk_token}, as in {unknown[0][:80]!r}. Choose a model.tokenizer for "
            "these texts."
        )


def _texts(dataset: Any) -> Iterator[str]:
    """Yield the texts of the annotations, unprocessed."""
    if hasattr(dataset, "datasets"):
        yield from chain.from_iterable(map(_texts, dataset.datasets))
    annotations = getattr(dataset, "annotations", ())
    # A row of another sequence may hold an image, which would be decoded.
    for annotation in annotations if isinstance(annotations, list | tuple) else ():
        if not isinstance(annotation, Mapping):
            return
        value = next((annotation[key] for key in TEXT_KEYS if key in annotation), None)
        values = value if isinstance(value, list) else [value]
        yield from (text for text in values if isinstance(text, str))
