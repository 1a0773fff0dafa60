"""Compare what CapFilt kept of the drawn web captions with what is true of each image.

    PYTHONPATH=projects python -m shapes.judge CLEANED --truth DRAWN [--output figures.json]

CLEANED is the output folder of ``lavis-lite capfilt run`` (or of a run of the task ``capfilt``), DRAWN
the folder in which shapes_web was drawn. ``lavis-lite capfilt report CLEANED --figures figures.json``
shows the figures beside examples.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis_lite.capfilt.output_reader import OutputReader
from lavis_lite.common.files import FileError

from .truth import main_object_is_right
from .web_noise import is_wholly_wrong
from .write_once import ShapesError
from .write_web import WebTruth, read_truth


def judge(rows: Iterable[Mapping[str, Any]], truth: Mapping[str, WebTruth]) -> dict[str, dict[str, float]]:
    """Return, for the texts of each source, how the filter did.

    "precision" is the share of wholly wrong texts among those that it dropped, "recall" the share of
    the wholly wrong ones that it dropped; texts that are partly right count in neither. "wrong_before"
    and "wrong_after" are the shares of wholly wrong texts, "main_object_right" that of texts, before,
    which name the largest object's colour and shape.

    Args:
        rows: of CapFilt's table of scores: {"key", "source", "text", "kept"}.

    Raises:
        ShapesError: nothing is known of a sample.
    """
    sources: dict[str, list[tuple[bool, bool, bool, bool]]] = {}
    for row in rows:
        if not row["source"]:
            continue
        known = truth.get(row["key"])
        if known is None:
            raise ShapesError(
                f"Sample {row['key']!r} is not among the {len(truth)} whose truth is known. Give the truth "
                "beside the shards that were cleaned."
            )
        wrong = is_wholly_wrong(row["text"], known.scene)
        whole = known.clean if row["source"] == "web" else main_object_is_right(row["text"], known.scene)
        right = main_object_is_right(row["text"], known.scene)
        sources.setdefault(row["source"], []).append((wrong, whole, right, bool(row["kept"])))
    return {source: _figures(judged) for source, judged in sources.items()}


def _figures(judged: list[tuple[bool, bool, bool, bool]]) -> dict[str, float]:
    dropped_wrong = sum(wrong and not kept for wrong, _, _, kept in judged)
    dropped_whole = sum(whole and not wrong and not kept for wrong, whole, _, kept in judged)
    wrongs = sum(wrong for wrong, *_ in judged)
    kept_ones = [wrong for wrong, _, _, kept in judged if kept]
    return {
        "texts": len(judged),
        "kept": len(kept_ones),
        "precision": _share(dropped_wrong, dropped_wrong + dropped_whole),
        "recall": _share(dropped_wrong, wrongs),
        "wrong_before": _share(wrongs, len(judged)),
        "wrong_after": _share(sum(kept_ones), len(kept_ones)),
        "main_object_right": _share(sum(right for _, _, right, _ in judged), len(judged)),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of the tables of scores in an output folder of CapFilt."""
    output = OutputReader(folder)
    names = output.table_names()
    if not names:
        raise ShapesError(f"{folder}: not a capfilt output folder, or nothing is scored yet.")
    for name in names:
        yield from output.rows(name)


def _print_table(figures: Mapping[str, Mapping[str, float]]) -> None:
    names = list(next(iter(figures.values()), {}))
    width = max(map(len, names), default=0)
    print(f"{'':<{width}}  " + "  ".join(f"{source:>9}" for source in figures))
    for name in names:
        print(f"{name:<{width}}  " + "  ".join(f"{of_source[name]:9.3f}" for of_source in figures.values()))


def main(words: list[str] | None = None) -> None:
    """Print the figures of an output folder, a column for each source of texts."""
    parser = argparse.ArgumentParser(prog="shapes.judge", description="Compare CapFilt with the truth.")
    parser.add_argument("folder", type=Path, help="output folder of capfilt")
    parser.add_argument("--truth", type=Path, required=True, help="folder of the drawn shards")
    parser.add_argument("--output", "-o", type=Path, help="write the figures to this JSON file too")
    options = parser.parse_args(words)
    try:
        figures = judge(_rows(options.folder), read_truth(options.truth.expanduser()))
    except (FileError, ShapesError) as error:
        parser.error(str(error))
    _print_table(figures)
    if options.output is not None:
        options.output.expanduser().write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
