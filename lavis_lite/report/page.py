"""Pages of one file each: what a template says, everything in it escaped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def write_page(template: str, path: Path, **contents: Any) -> Path:
    """Fill `template`, a file of this folder, into `path`, in one go; return `path`."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**contents)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.write_text(page, encoding="utf-8", errors="replace")  # texts may hold broken Unicode
    aside.replace(path)
    return path
