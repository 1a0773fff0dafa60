"""Line charts as SVG elements, drawn by matplotlib, that read well on light and on dark pages."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

Point = tuple[float, float]

# Each has a contrast of at least 3 : 1 on white as well as on near-black.
COLORS = ("#2f7de1", "#d9730d", "#1a9850", "#dd3f4b", "#9b5de5", "#0e9594")
PAGE_COLOR = "#123456"  # drawn with, and replaced by the text color of the page
SVG = "http://www.w3.org/2000/svg"
WIDTH, PLOT_HEIGHT, BOTTOM, ROW = 440, 180, 56, 18  # pixels
POINTS_PER_SERIES = 200
MARKED_POINTS = 30  # more are shown only where the pointer is
LEGEND_LETTERS, LEGEND_COLUMNS = 40, 2
LARGEST = 1e100  # beyond it, the arithmetic of an axis would overflow
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lavis_lite",
    "text.parse_math": False,
    "font.size": 13,
    "text.color": PAGE_COLOR,
    "axes.edgecolor": PAGE_COLOR,
    "axes.labelcolor": PAGE_COLOR,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "xtick.color": PAGE_COLOR,
    "ytick.color": PAGE_COLOR,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": PAGE_COLOR,
    "grid.alpha": 0.15,
}
ElementTree.register_namespace("", SVG)


def line_chart(series: Mapping[str, Sequence[Point]], title: str, x_label: str) -> str:
    """Draw each of `series` as a line and return an ``<svg>`` element.

    A value that is not finite leaves a gap, and the chart says how many there are. Long series are
    thinned, keeping the smallest and the largest value of each part. A tooltip shows each value.

    Args:
        series: name -> (x, y) points, in any order of x.
    """
    title = _printable(title)
    lines = {_printable(name): _stretches(sorted(points)) for name, points in series.items()}
    missing = sum(map(len, series.values())) - sum(len(part) for parts in lines.values() for part in parts)
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font which measures the texts lacks
        svg = _draw(lines, title, x_label, f"{missing} not finite" if missing else "")
    svg.attrib |= {"class": "chart", "role": "img", "aria-label": _summary(title, lines)}
    svg.set("font-family", "system-ui, sans-serif")
    text = ElementTree.tostring(svg, encoding="unicode")
    return re.sub(r" font-family: [^;\"]*;", "", text).replace(PAGE_COLOR, "currentColor")


def thin(points: Sequence[Point], limit: int) -> list[Point]:
    """Return at most `limit` of `points`, keeping both ends and the extremes in between."""
    if len(points) <= limit:
        return list(points)
    inner, buckets = points[1:-1], max(1, (limit - 2) // 2)
    thinned = [points[0]]
    for bucket in range(buckets):
        part = inner[bucket * len(inner) // buckets : (bucket + 1) * len(inner) // buckets]
        thinned += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return [*thinned, points[-1]]


def _draw(lines: Mapping[str, list[list[Point]]], title: str, x_label: str, note: str) -> ElementTree.Element:
    has_legend = bool(lines) and [*lines] != [title]
    top = 34 + (ROW * math.ceil(len(lines) / LEGEND_COLUMNS) if has_legend else 0)
    height = top + PLOT_HEIGHT + BOTTOM
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    axes = figure.add_axes((58 / WIDTH, BOTTOM / height, 362 / WIDTH, PLOT_HEIGHT / height))
    axes.grid(axis="y")
    figure.text(8 / WIDTH, 1 - 20 / height, title, fontsize=15, fontweight="bold")
    figure.text(1 - 20 / WIDTH, 8 / height, x_label, ha="right")
    figure.text(8 / WIDTH, 8 / height, note, color=COLORS[3])
    circles = []
    for index, (name, parts) in enumerate(lines.items()):
        color, lap = COLORS[index % len(COLORS)], index // len(COLORS)
        count = sum(map(len, parts))
        parts = [thin(part, max(2, POINTS_PER_SERIES * len(part) // count)) for part in parts]
        # the end of a part twice: a line of one point is a dot; then what is not finite leaves a gap
        joined = [point for part in parts for point in (*part, part[-1], (part[-1][0], math.nan))]
        dashes = (0, (4 + 3 * lap, 2 + 2 * lap)) if lap else "solid"
        axes.plot(
            [x for x, _ in joined], [y for _, y in joined], color=color, linewidth=2, linestyle=dashes,
            solid_capstyle="round", clip_on=False,
        )  # fmt: skip
        marker = {"r": "3"} if count <= MARKED_POINTS else {"r": "5", "fill-opacity": "0"}
        for x, y in (point for part in parts for point in part):
            circles.append(((x, y), f"{name}: {y:.6g} at {x_label} {x:.10g}", {"fill": color, **marker}))
    if not circles:
        axes.text(0.5, 0.5, "no points yet", ha="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
    if has_legend:
        labels = [name if len(name) <= LEGEND_LETTERS else name[: LEGEND_LETTERS - 1] + "…" for name in lines]
        figure.legend(
            axes.lines, labels, loc="upper left", bbox_to_anchor=(8 / WIDTH, 1 - 26 / height),
            ncols=LEGEND_COLUMNS, frameon=False, borderpad=0, borderaxespad=0, labelspacing=0.2,
        )  # fmt: skip
    svg = _svg_of(figure)
    for (x, y), label, attributes in circles:
        right, up = axes.transData.transform((x, y))
        position = {"cx": f"{right:.1f}", "cy": f"{height - up:.1f}"}
        circle = ElementTree.SubElement(svg, f"{{{SVG}}}circle", {**position, **attributes})
        ElementTree.SubElement(circle, f"{{{SVG}}}title").text = label
    return svg


def _svg_of(figure: Figure) -> ElementTree.Element:
    """Return matplotlib's SVG without what several charts in one page must not share: ids and styles."""
    file = io.StringIO()
    figure.savefig(
        file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    svg = ElementTree.fromstring(file.getvalue())
    for parent in list(svg.iter()):
        parent.attrib.pop("id", None)
        parent.attrib.pop("clip-path", None)
        for child in parent.findall(f"{{{SVG}}}defs"):
            parent.remove(child)
    del svg.attrib["width"], svg.attrib["height"]
    return svg


def _stretches(points: Sequence[Point]) -> list[list[Point]]:
    """Split sorted points where values are not finite."""
    groups = groupby(points, key=lambda point: all(abs(number) < LARGEST for number in point))
    return [list(group) for is_finite, group in groups if is_finite]


def _summary(title: str, lines: Mapping[str, list[list[Point]]]) -> str:
    """Say in words what the chart shows, for a screen reader."""
    ends = [
        f"{name} goes from {parts[0][0][1]:.4g} to {parts[-1][-1][1]:.4g}"
        for name, parts in lines.items()
        if parts
    ]
    return f"{title}: {'; '.join(ends) or 'no points yet'}"


def _printable(text: str) -> str:
    """Replace what XML cannot hold."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
