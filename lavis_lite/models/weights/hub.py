"""Repositories of the Hugging Face hub, as folders on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from lavis_lite.common.storage.http import DownloadError

PREFIX = "hf://"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".json", ".yaml")
_SETTINGS = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json")
VOCABULARY_FILES = ("vocab.txt", "tokenizer.json")  # either will do
_TOKENIZER = (*VOCABULARY_FILES, "tokenizer_config.json", "special_tokens_map.json")
_SAFE = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json")


class HubError(DownloadError):
    """A hub repository that cannot be had; the message says why and what to do."""


def is_hub_name(address: str | Path) -> bool:
    """Return whether `address` names a hub repository: "owner/name" that is nothing here, or "hf://...".

    >>> is_hub_name("Salesforce/blip-vqa-base"), is_hub_name("weights/model.pth"), is_hub_name("./a/b")
    (True, False, False)
    """
    if not isinstance(address, str):
        return False
    if address.startswith(PREFIX):
        return True
    return bool(_NAME.fullmatch(address)) and not (address.endswith(_FILE_SUFFIXES) or Path(address).exists())


def hub_snapshot(name: str, revision: str | None = None) -> Path:
    """Return a folder with the settings, tokenizer and weights of a hub repository, in the hub's own cache.

    Weights come as safetensors; as a pickle only where a repository has nothing else.

    Args:
        revision: a branch, a tag or a commit; None for the newest.

    Raises:
        HubError: no such repository, no network, or it holds no weights.
    """
    repository = name.removeprefix(PREFIX)
    folder = _download(repository, revision, (*_SETTINGS, *_TOKENIZER, *_SAFE))
    if not _has_any(folder, _SAFE):
        folder = _download(repository, revision, (*_SETTINGS, *_TOKENIZER, *_PICKLED))
    if not (folder / "config.json").is_file():
        raise HubError(
            f"{repository}: the hub repository has no config.json, or the cache ({folder}) holds only a part "
            "of it; name one that transformers can read, and download it with a network once."
        )
    if not _has_any(folder, (*_SAFE, *_PICKLED)):
        raise HubError(
            f"{repository}: no model.safetensors and no pytorch_model.bin in the hub repository, or in the "
            f"cache ({folder}), which may hold only a part of it; download it with a network once."
        )
    return folder


def hub_tokenizer(name: str) -> Path:
    """Return a folder with the tokenizer of a hub repository, in the hub's own cache, and nothing else.

    Raises:
        HubError: no such repository, or no network and nothing in the cache.
    """
    return _download(name.removeprefix(PREFIX), None, _TOKENIZER)


def has_vocabulary(folder: Path) -> bool:
    """Return whether a tokenizer can be made of what is in `folder`."""
    return _has_any(folder, VOCABULARY_FILES)


def _has_any(folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in patterns)


def _download(repository: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import constants, errors, snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except errors.GatedRepoError as error:
        raise HubError(
            f"{repository}: the hub asks you to accept terms first; do so on its page, then log in."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"{repository}: neither a file or folder here nor a public hub repository; correct the name, "
            "or log in if it is private."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{repository}: has no revision {revision!r} on the hub.") from error
    except (OSError, ValueError, errors.HTTPError) as error:
        raise HubError(f"{repository}: {_reason(error, constants.HF_HUB_OFFLINE)}") from error


def _reason(error: Exception, offline: bool) -> str:
    if offline:
        return (
            "neither a file or folder here nor in the hub's cache, and HF_HUB_OFFLINE forbids to ask the "
            "hub; unset it, or set the path of a local copy."
        )
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"the hub cannot be reached and its cache does not hold the repository ({first_line[:200]}); "
        "look at the network, or set the path of a local copy."
    )
