"""How well a filter did on drawn web captions, whose truth is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lavis_lite.datasets.shapes.truth import main_object_is_right
from lavis_lite.datasets.shapes.web_noise import is_wholly_wrong
from lavis_lite.datasets.shapes.write import ShapesError
from lavis_lite.datasets.shapes.write_web import WebTruth


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
