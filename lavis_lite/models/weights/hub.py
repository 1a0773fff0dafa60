"""Repositories of the Hugging Face hub, as folders on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from lavis_lite.common.files import first_line
from lavis_lite.common.storage.http import DownloadError

PREFIX = "hf://"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".json", ".yaml")
_SETTINGS = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json")
VOCABULARY_FILES = ("vocab.txt", "tokenizer.json")  # one of them suffices
_TOKENIZER = (*VOCABULARY_FILES, "tokenizer_config.json", "special_tokens_map.json")
_SAFETENSORS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json")


class HubError(DownloadError):
    """An unavailable hub repository; the message says why and what to do."""


def is_hub_name(address: str | Path) -> bool:
    """Return whether `address` names a hub repository: "hf://...", or "owner/name" that is no local path.

    >>> is_hub_name("Salesforce/blip-vqa-base"), is_hub_name("weights/model.pth"), is_hub_name("./a/b")
    (True, False, False)
    """
    if not isinstance(address, str):
        return False
    if address.startswith(PREFIX):
        return True
    return bool(_NAME.fullmatch(address)) and not (address.endswith(_FILE_SUFFIXES) or Path(address).exists())


def hub_snapshot(name: str) -> Path:
    """Return a folder with the settings, tokenizer and weights of a hub repository, in the hub's cache.

    Weights are downloaded as safetensors; as a pickle only if the repository has nothing else.

    Raises:
        HubError: no such repository, no network, or no weights in it.
    """
    repository = name.removeprefix(PREFIX)
    folder = _download(repository, (*_SETTINGS, *_TOKENIZER, *_SAFETENSORS))
    if not _has_any(folder, _SAFETENSORS):
        folder = _download(repository, (*_SETTINGS, *_TOKENIZER, *_PICKLES))
    required = {
        "config.json": ("config.json",),
        "model.safetensors or pytorch_model.bin": (*_SAFETENSORS, *_PICKLES),
    }
    for file, patterns in required.items():
        if not _has_any(folder, patterns):
            raise HubError(
                f"{repository}: the hub repository has no {file}, or the cache ({folder}) holds only a part "
                "of it; download it once with a network."
            )
    return folder


def hub_tokenizer(name: str) -> Path:
    """Return a folder with only the tokenizer of a hub repository, in the hub's cache.

    Raises:
        HubError: no such repository, or no network and nothing in the cache.
    """
    return _download(name.removeprefix(PREFIX), _TOKENIZER)


def has_vocabulary(folder: Path) -> bool:
    """Return whether `folder` holds the vocabulary of a tokenizer."""
    return _has_any(folder, VOCABULARY_FILES)


def _has_any(folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in patterns)


def _download(repository: str, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import constants, errors, snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns)))
    except (OSError, ValueError, errors.HTTPError) as error:
        if isinstance(error, errors.GatedRepoError):
            reason = "the hub asks you to accept terms first; do so on its page, then log in."
        elif isinstance(error, errors.RepositoryNotFoundError):
            reason = (
                "neither a file or folder here nor a public hub repository; correct the name, or log in if "
                "it is private."
            )
        elif constants.HF_HUB_OFFLINE:
            reason = (
                "neither a file or folder here nor in the hub's cache, and HF_HUB_OFFLINE forbids to ask the "
                "hub; unset it, or set the path of a local copy."
            )
        else:
            reason = (
                f"the hub cannot be reached and its cache does not hold the repository "
                f"({first_line(error)}); check the network, or set the path of a local copy."
            )
        raise HubError(f"{repository}: {reason}") from error
