"""The marker of a finished unit, ``done/NAME.json``: counts, and what its files must be like."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavis_lite.capfilt.names import digest_of
from lavis_lite.common.files import FileError, read_json, write_json

MARKER_FOLDER = "done"


def marker_file(folder: Path, name: str) -> Path:
    """Return where the marker of a unit of an output folder is."""
    return folder / MARKER_FOLDER / f"{name}.json"


def write_marker(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    """Write the marker of a unit, with a digest of itself."""
    write_json({**content, "digest": _digest(content)}, marker_file(folder, name))


def read_marker(folder: Path, name: str, any_version: bool = False) -> dict[str, Any] | None:
    """Return the marker of a unit; None if there is none, or if it is not what was written.

    Args:
        any_version: take markers of version 0.1.0 as well. They have no digests, so damage goes unnoticed.
    """
    try:
        marker = read_json(marker_file(folder, name))
    except FileError:
        return None
    if any_version and isinstance(marker, dict) and "digest" not in marker:
        return marker
    if not isinstance(marker, dict) or marker.pop("digest", None) != _digest(marker):
        return None
    return marker


def read_markers(folder: Path, any_version: bool = False) -> dict[str, dict[str, Any]]:
    """Return the markers of all finished units by name, without damaged ones; see `read_marker`."""
    names = sorted(file.stem for file in (folder / MARKER_FOLDER).glob("*.json"))
    markers = {name: read_marker(folder, name, any_version) for name in names}
    return {name: marker for name, marker in markers.items() if marker is not None}


def _digest(content: Mapping[str, Any]) -> str:
    return digest_of(json.dumps(content, sort_keys=True).encode())
