"""Run by `make wheel` in an environment that holds the wheel and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> None:
    """Compare the installed package with the one of the repository."""
    import lavis_lite

    installed, source = Path(lavis_lite.__file__).parent, REPOSITORY / "lavis_lite"
    assert installed != source, f"{source} was imported in place of the wheel"
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    missing = [str(path) for path in files if path.suffix != ".pyc" and not (installed / path).is_file()]
    if missing:
        sys.exit(f"not in the wheel: {', '.join(sorted(missing))}")
    print(f"lavis_lite {lavis_lite.__version__}: {len(files)} files are in the wheel")


if __name__ == "__main__":
    main()
