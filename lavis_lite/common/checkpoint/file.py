"""Reading and writing one checkpoint file: checked before it is trusted, written whole or not at all."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavis_lite.common.checkpoint.formats import other_format, torch_format
from lavis_lite.common.files import FileError, atomic_writer, first_line, open_regular

HEAD_BYTES = 64  # enough to tell formats apart


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit; the message says which and why."""


def save_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Write `content` so that `path` holds either all of it or what it held before.

    Raises:
        CheckpointError: the system refuses to write it (a full disk, say); `path` is as before.
    """
    try:
        with atomic_writer(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        # torch hides the system's error behind one of its own when a write falls short
        cause = next((link for link in _chain(error) if isinstance(link, OSError)), error)
        raise CheckpointError(
            f"{path}: cannot be written ({first_line(cause)}). Files that were complete are untouched."
        ) from error


def load_file(path: str | Path, map_location: str = "cpu") -> Any:
    """Return what a checkpoint file holds: ``.safetensors``, or a pickle of plain values and tensors.

    A zip, as torch writes, has a checksum for every part of it. Safetensors and torch's old format have
    none: of these the structure is checked, but a changed number among the weights cannot be seen.

    Raises:
        CheckpointError: no such file, damaged, another format, or a pickle that would run code.
    """
    path = Path(path)
    head = _read_head(path)
    name = other_format(path, head)
    if name is not None:
        raise CheckpointError(f"{path}: {name}; expected a .pth or a .safetensors file.")
    file_format = torch_format(path, head)
    if file_format == "safetensors":
        content: Any = _load_safetensors(path)
    elif file_format is None:
        raise CheckpointError(
            f"{path}: the file is damaged or not a checkpoint: it begins neither like a file of torch.save "
            "nor like safetensors."
        )
    else:
        if file_format == "zip":
            _refuse_damaged_zip(path)
        content = _load_pickle(path, map_location, checked=file_format == "zip")
    _check_sizes(content, path)
    return content


def tensors_in(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors inside nested mappings and lists, each with its path ("optimizer.state.0")."""
    seen: set[int] = set()
    pending: list[tuple[str, Any]] = [("", content)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, Tensor):
            yield path, value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))  # a pickle may hold a list that contains itself
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            pending += [(f"{path}.{key}" if path else str(key), item) for key, item in items]


def _read_head(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
    except FileError as error:
        raise CheckpointError(str(error)) from error.__cause__
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({first_line(error)}).") from error
    if not head:
        raise CheckpointError(f"{path}: the file is damaged (it is empty).")
    return head


def _load_pickle(path: Path, map_location: str, checked: bool) -> Any:
    """Return the content of a file of torch.save.

    Args:
        checked: every byte agrees with a checksum, so that what is wrong was written that way.
    """
    try:
        with open_regular(path) as file:  # of a path, torch would look at the suffix
            return torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = re.search(r"WeightsUnpickler error: (.*)", str(error))
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named is None and not checked:
            said = reason[1] if reason else first_line(error)
            raise CheckpointError(f"{path}: the file is damaged ({said}).") from error
        asked = named[1] if named else reason[1] if reason else first_line(error)
        raise CheckpointError(
            f"{path}: the file asks for more than tensors and plain values "
            f"({asked}); loading it could run somebody's code, so it is "
            "refused. If you trust it, load it yourself and save its weights again with "
            'torch.save({"model": state_dict}, path).'
        ) from error
    except Exception as error:  # of damaged files torch raises errors of a dozen kinds
        raise CheckpointError(f"{path}: the file is damaged ({first_line(error)}).") from error


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file as load_safetensors

    try:
        return load_safetensors(path)
    except Exception as error:  # safetensors' own, and those of json, numpy and the system
        raise CheckpointError(
            f"{path}: the file is damaged: it cannot be read as safetensors ({first_line(error)})."
        ) from error


def _refuse_damaged_zip(path: Path) -> None:
    """Check the CRC of every member: torch itself does not, and would load flipped bits."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise zipfile.BadZipFile("it has compressed members, which torch.save never writes")
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise zipfile.BadZipFile("its members claim more bytes than the file has")
            if len({member.filename for member in members}) < len(members):
                raise zipfile.BadZipFile("two of its members have one name")
            damaged = archive.testzip()
    except Exception as error:  # of damaged directories zipfile raises errors of a dozen kinds
        raise CheckpointError(f"{path}: the file is damaged ({first_line(error)}).") from error
    if damaged is not None:
        raise CheckpointError(f"{path}: the file is damaged (member {damaged}).")


def _check_sizes(content: Any, path: Path) -> None:
    """Refuse a tensor that stands for more bytes than the file has: copying it could take all memory."""
    size = path.stat().st_size
    for name, tensor in tensors_in(content):
        if tensor.is_meta or tensor.layout != torch.strided:
            continue  # takes no memory by itself; `load_strictly` refuses it
        if tensor.numel() * tensor.element_size() > size:
            raise CheckpointError(
                f"{path}: the file is damaged: {name} has the shape {tuple(tensor.shape)}, more than "
                f"the {size} bytes of the file."
            )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
