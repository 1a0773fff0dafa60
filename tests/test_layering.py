"""Imports run downhill: which part may know of which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lavis_lite"

# part -> the parts that it may import besides itself
MAY_IMPORT: dict[str, set[str]] = {
    "common": set(),
    "models": {"common"},
    "datasets": {"common"},
    "processors": {"common"},
    "metrics": {"common"},
    "search": {"models", "common"},
    "tasks": {"metrics", "common"},
    "capfilt": {"tasks", "models", "datasets", "metrics", "common"},
    "report": {"capfilt", "metrics", "common"},
    "runners": {"datasets", "common"},
    "commands": {"capfilt", "common", "datasets", "models", "report", "runners", "search", "tasks"},
    "cli": {"commands", "common", "report", "runners"},
    "__init__": {"common", "datasets", "models"},
    "__main__": {"cli"},
}
# of the data sets, runners know the loading alone; of capfilt, reports know the output folder
ONLY_MODULES = {
    ("runners", "datasets"): ("lavis_lite.datasets.loading.", "lavis_lite.datasets.mixing."),
    ("report", "capfilt"): ("lavis_lite.capfilt.output_reader.", "lavis_lite.capfilt.summary."),
}
# These annotate with the contracts of the parts above them, without importing them when they run.
MAY_NAME_ALL_FOR_ANNOTATIONS = {
    *(
        PACKAGE / "common" / name
        for name in ("registry.py", "config/layering.py", "config/shared_settings.py")
    )
}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports_of(path: Path) -> Iterator[str]:
    """Yield the modules of our own that a file imports, inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path in MAY_NAME_ALL_FOR_ANNOTATIONS:
        tree.body = [node for node in tree.body if not is_type_checking(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "lavis_lite")


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_run_downhill(path: Path):
    part = part_of(path)
    for name in imports_of(path):
        target = name.split(".")[1]
        if target == part:
            continue
        assert target in MAY_IMPORT[part], f"{part} may not import {name}"
        only = ONLY_MODULES.get((part, target))
        assert only is None or name.startswith(only), f"{part} may import {only} only, not {name}"


def test_the_package_imports_nothing_heavy():
    import subprocess
    import sys

    heavy = "torch, transformers, timm, torchvision, numpy, PIL, omegaconf"
    code = f"import sys, lavis_lite; print([m for m in '{heavy}'.split(', ') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
