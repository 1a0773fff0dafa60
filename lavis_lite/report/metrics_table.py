"""The metrics of a run as cells of a table, with the remarks that belong to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lavis_lite.common.logs.writers import as_number
from lavis_lite.common.results import MADE_WITH


@dataclass
class MetricsTable:
    """Rows of (metric, a text per split), and the remarks below them."""

    splits: list[str] = field(default_factory=list)
    rows: list[tuple[str, list[str]]] = field(default_factory=list)
    remarks: list[tuple[str, str, str]] = field(default_factory=list)  # split, what, text
    unavailable: list[tuple[str, str, str]] = field(default_factory=list)  # split, metric, reason
    notice: str | None = None


def metrics_table(by_split: Mapping[str, Any], notice: str | None = None) -> MetricsTable:
    """Return the table of ``{split: {metric: value}}``; texts such as "tokenizer" become remarks.

    Args:
        by_split: the key "unavailable" of a split maps metrics to reasons.
        notice: shown above the table.
    """
    table = MetricsTable(notice=notice)
    cells: dict[str, dict[str, str]] = {}
    for split, values in by_split.items():
        if split == MADE_WITH or not isinstance(values, Mapping):
            table.remarks.append(("run", split.replace("_", " "), _text(values)))
            continue
        table.splits.append(split)
        for name, value in values.items():
            if as_number(value) is not None:
                cells.setdefault(name, {})[split] = f"{value:.4g}" if isinstance(value, float) else str(value)
            elif name == "unavailable" and isinstance(value, Mapping):
                table.unavailable += [(split, metric, _text(reason)) for metric, reason in value.items()]
            else:
                table.remarks.append((split, name, _text(value)))
    table.rows = [(name, [row.get(split, "-") for split in table.splits]) for name, row in cells.items()]
    return table


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
