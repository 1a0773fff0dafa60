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

from lavis_lite.common.checkpoint.formats import HEAD_BYTES, foreign_format, torch_format
from lavis_lite.common.files import FileError, atomic_writer, first_line, open_regular


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit; the message says which and why."""


def save_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Write `content` so that `path` holds either all of it or what it held before.

    Raises:
        CheckpointError: the system refuses to write it (a full disk, say); `path` is unchanged.
    """
    try:
        with atomic_writer(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        # torch hides the system's error behind one of its own when a write falls short
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        raise CheckpointError(
            f"{path}: cannot be written ({first_line(cause or error)}). Complete files are untouched."
        ) from error


def load_file(path: str | Path, map_location: str = "cpu") -> Any:
    """Return the content of a checkpoint file: ``.safetensors``, or a pickle of plain values and tensors.

    A zip, which torch writes, has a checksum for each of its parts. Safetensors and torch's old format have
    none: their structure is checked, but a changed number among the weights goes unnoticed.

    Raises:
        CheckpointError: a missing or damaged file, another format, or a pickle that would run code.
    """
    path = Path(path)
    head = _read_head(path)
    foreign = foreign_format(path, head)
    if foreign is not None:
        raise CheckpointError(f"{path}: {foreign}; expected a .pth or a .safetensors file.")
    file_format = torch_format(path, head)
    if file_format is None:
        raise CheckpointError(
            f"{path}: the file is damaged or not a checkpoint: it begins neither like a file of torch.save "
            "nor like safetensors."
        )
    content: Any
    if file_format == "safetensors":
        content = _load_safetensors(path)
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
        checked: every byte has been compared with a checksum, so errors are not caused by damage.
    """
    try:
        with open_regular(path) as file:  # given a path, torch would look at the suffix
            return torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"GLOBAL (\S+)", str(error))
        match = forbidden or re.search(r"WeightsUnpickler error: (.*)", str(error))
        reason = match[1] if match else first_line(error)
        if forbidden is None and not checked:
            raise CheckpointError(f"{path}: the file is damaged ({reason}).") from error
        raise CheckpointError(
            f"{path}: the file asks for more than tensors and plain values ({reason}); loading it could run "
            "somebody's code, so it is refused. If you trust it, load it yourself and save its weights again "
            'with torch.save({"model": state_dict}, path).'
        ) from error
    except Exception as error:  # torch raises errors of a dozen types for damaged files
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
    """Check the CRC of every member: torch does not, and would load flipped bits."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise zipfile.BadZipFile("it has compressed members, which torch.save never writes")
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise zipfile.BadZipFile("its members claim more bytes than the file has")
            if len({member.filename for member in members}) < len(members):
                raise zipfile.BadZipFile("two of its members have one name")
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"member {damaged}")
    except Exception as error:  # zipfile raises errors of a dozen types for damaged directories
        raise CheckpointError(f"{path}: the file is damaged ({first_line(error)}).") from error


def _check_sizes(content: Any, path: Path) -> None:
    """Refuse a tensor that claims more bytes than the file has: copying it could exhaust the memory."""
    size = path.stat().st_size
    for name, tensor in tensors_in(content):
        if tensor.is_meta or tensor.layout != torch.strided:
            continue  # occupies no memory by itself; `load_strictly` refuses it
        if tensor.numel() * tensor.element_size() > size:
            raise CheckpointError(
                f"{path}: the file is damaged: {name} has the shape {tuple(tensor.shape)}, more than "
                f"the {size} bytes of the file."
            )
