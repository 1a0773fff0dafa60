"""HTML pages of one file each, made from a template, with everything escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lavis_lite.common.files import atomic_writer


def write_page(template: str, path: Path, **contents: Any) -> Path:
    """Write `template`, a file of this folder, with its `contents` to `path`, atomically; return `path`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**contents)
    with atomic_writer(path, "w") as file:
        file.write(page)
    return path
