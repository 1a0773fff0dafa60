"""Line charts as SVG text that needs nothing around it and reads well on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

Point = tuple[float, float]

# Each has a contrast of at least 3 : 1 on white as well as on near-black.
COLORS = ("#2f7de1", "#d9730d", "#1a9850", "#dd3f4b", "#9b5de5", "#0e9594")
WIDTH = 440
PLOT_LEFT, PLOT_RIGHT, PLOT_HEIGHT = 58, 420, 180
POINTS_PER_SERIES = 200  # more than pixels would only make the page heavy
MARKED_POINTS = 30
LEGEND_LETTERS = 40
HUGE, TINY = 1e100, 1e-100  # beyond them the arithmetic of an axis would overflow
ROW = 18


def line_chart(
    series: Mapping[str, Sequence[Point]],
    title: str,
    x_label: str,
    y_label: str,
) -> str:
    """Draw each of `series` as a line and return an ``<svg>`` element.

    A value that is not finite leaves a gap, and the chart says how many there were. Long series are
    thinned so that the least and the greatest value of each stretch stay. Pointing at a value shows it.

    Args:
        series: name -> (x, y) points, in any order of x.
        y_label: may be empty where `title` says it.
    """
    named = {name: sorted(points, key=lambda point: point[0]) for name, points in series.items()}
    finite = [point for points in named.values() for point in points if _is_finite(point)]
    lost = sum(len(points) for points in named.values()) - len(finite)
    # what the title says already needs no second place
    legend, legend_rows = ("", 0) if [*named] == [title] else _legend(list(named))
    top = 34 + ROW * (legend_rows + bool(y_label))
    bottom = top + PLOT_HEIGHT
    height = bottom + 42
    parts = [
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{_escaped(_summary(title, named))}" font-family="system-ui, sans-serif" font-size="13"'
        ' fill="currentColor">',
        f'<text x="8" y="18" font-size="15" font-weight="600">{_escaped(title)}</text>',
        legend,
    ]
    if finite:
        x_of = _axis_scale([x for x, _ in finite], PLOT_LEFT, PLOT_RIGHT, about=4)
        y_of = _axis_scale([y for _, y in finite], bottom - 4, top + 6, about=5)
        if y_label:
            parts.append(f'<text x="8" y="{top - 8}" opacity="0.75">{_escaped(y_label)}</text>')
        parts.append(_axes(x_of, y_of, top, bottom))
        for index, (name, points) in enumerate(named.items()):
            parts.append(_line(index, name, points, x_of, y_of, x_label))
    else:
        parts.append(f'<text x="{WIDTH / 2}" y="{top + 80}" text-anchor="middle">no points yet</text>')
    parts.append(
        f'<text x="{PLOT_RIGHT}" y="{height - 8}" text-anchor="end" opacity="0.75">{_escaped(x_label)}</text>'
    )
    if lost:
        parts.append(f'<text x="8" y="{height - 8}" fill="{COLORS[3]}">{lost} not finite</text>')
    return "".join([*parts, "</svg>"])


class _Scale:
    """Map the range of some data to pixels, and cut it at round numbers."""

    def __init__(self, low: float, high: float, first_pixel: float, last_pixel: float, about: int) -> None:
        self._low, self._first = low, first_pixel
        self._factor = (last_pixel - first_pixel) / (high - low)
        self.ticks = round_ticks(low, high, about)

    def __call__(self, value: float) -> float:
        return round(self._first + (value - self._low) * self._factor, 1)


def _axis_scale(values: Sequence[float], first_pixel: float, last_pixel: float, about: int) -> _Scale:
    low, high = min(values), max(values)
    # a range that floating point can hardly tell from a point would have ticks on top of each other
    if high - low <= max(1e-9 * max(abs(low), abs(high)), TINY):
        margin = abs(low) * 0.1 if abs(low) > TINY else 1.0
        low, high = low - margin, high + margin
    return _Scale(low, high, first_pixel, last_pixel, about)


def round_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers between `low` and `high`, `about` as many as asked for.

    >>> round_ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((power, 2 * power, 5 * power, 10 * power), key=lambda step: abs(math.log(step / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def tick_text(value: float, step: float) -> str:
    """Write a tick with the digits that tell it from its neighbours, `step` away.

    >>> tick_text(20500, 500), tick_text(0.5, 0.05), tick_text(0.00001, 0.00001)
    ('20.5k', '0.50', '1e-05')
    """
    size, step_power = abs(value), math.floor(math.log10(step) + 1e-9)
    if size == 0:
        return "0"
    if size < 1e-3:
        return f"{value:.{max(1, math.floor(math.log10(size)) - step_power + 1)}g}"
    for suffix, unit in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if unit <= size < 1000 * unit and step >= unit / 1000:
            return f"{value / unit:.6g}{suffix}"
    return f"{value:,.{max(0, -step_power)}f}"


def thin(points: Sequence[Point], limit: int) -> list[Point]:
    """Return at most `limit` of `points`, keeping both ends and the extremes in between."""
    if len(points) <= limit:
        return list(points)
    inner, buckets = points[1:-1], max(1, (limit - 2) // 2)
    kept = [points[0]]
    for bucket in range(buckets):
        stretch = inner[bucket * len(inner) // buckets : (bucket + 1) * len(inner) // buckets]
        lowest, highest = min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])
        kept += sorted({lowest, highest})
    return [*kept, points[-1]]


def _axes(x_of: _Scale, y_of: _Scale, top: float, bottom: float) -> str:
    parts = []
    for tick, text in _labelled(y_of.ticks):
        y = y_of(tick)
        parts.append(f'<path d="M{PLOT_LEFT} {y}H{PLOT_RIGHT}" stroke="currentColor" opacity="0.15"/>')
        parts.append(f'<text x="{PLOT_LEFT - 6}" y="{y + 4}" text-anchor="end" opacity="0.75">{text}</text>')
    for tick, text in _labelled(x_of.ticks):
        x = x_of(tick)
        parts.append(f'<path d="M{x} {bottom}v5" stroke="currentColor" opacity="0.5"/>')
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle" opacity="0.75">{text}</text>')
    frame = f"M{PLOT_LEFT} {top}V{bottom}H{PLOT_RIGHT}"
    parts.append(f'<path d="{frame}" fill="none" stroke="currentColor" opacity="0.5"/>')
    return "".join(parts)


def _labelled(ticks: Sequence[float]) -> Iterator[tuple[float, str]]:
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    return ((tick, tick_text(tick, step)) for tick in ticks)


def _line(
    index: int,
    name: str,
    points: Sequence[Point],
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
    x_label: str,
) -> str:
    color, path, dots = COLORS[index % len(COLORS)], [], []
    stretches = _finite_stretches(points)
    count = sum(map(len, stretches))
    marker = 'r="3"' if count <= MARKED_POINTS else 'r="5" fill-opacity="0"'
    for stretch in stretches:
        limit = max(2, POINTS_PER_SERIES * len(stretch) // count)
        pixels = [(x_of(x), y_of(y), x, y) for x, y in thin(stretch, limit)]
        path.append("M" + "L".join(f"{x} {y}" for x, y, *_ in pixels))
        path.append("h0" if len(pixels) == 1 else "")  # with round ends, a point on its own is a dot
        for pixel_x, pixel_y, x, y in pixels:
            label = f"{name}: {y:.6g} at {x_label} {x:.10g}"
            dots.append(
                f'<circle cx="{pixel_x}" cy="{pixel_y}" {marker}><title>{_escaped(label)}</title></circle>'
            )
    return (
        f'<path d="{"".join(path)}" fill="none" stroke="{color}" stroke-width="2" stroke-linecap="round"'
        f' stroke-linejoin="round"{_dashes(index)}/><g fill="{color}">{"".join(dots)}</g>'
    )


def _finite_stretches(points: Sequence[Point]) -> list[list[Point]]:
    stretches: list[list[Point]] = [[]]
    for point in points:
        if _is_finite(point):
            stretches[-1].append(point)
        else:
            stretches.append([])
    return [stretch for stretch in stretches if stretch]


def _legend(names: Sequence[str]) -> tuple[str, int]:
    parts, x, row = [], 8, 0
    for index, name in enumerate(names):
        text = name if len(name) <= LEGEND_LETTERS else name[: LEGEND_LETTERS - 1] + "…"
        width = 34 + round(7.5 * len(text))
        if x > 8 and x + width > WIDTH:
            x, row = 8, row + 1
        y = 30 + ROW * row
        color = COLORS[index % len(COLORS)]
        parts.append(f'<path d="M{x} {y + 4}h18" stroke="{color}" stroke-width="3"{_dashes(index)}/>')
        parts.append(f'<text x="{x + 24}" y="{y + 8}">{_escaped(text)}</text>')
        x += width
    return "".join(parts), row + 1 if names else 0


def _dashes(index: int) -> str:
    """Tell lines apart whose colours have come round again."""
    lap = index // len(COLORS)
    return f' stroke-dasharray="{4 + 3 * lap} {2 + 2 * lap}"' if lap else ""


def _summary(title: str, named: Mapping[str, Sequence[Point]]) -> str:
    """Say in words what the chart shows, for those who cannot see it."""
    lines = []
    for name, points in named.items():
        values = [y for x, y in points if _is_finite((x, y))]
        if values:
            lines.append(f"{name} goes from {values[0]:.4g} to {values[-1]:.4g}")
    return f"{title}: {'; '.join(lines) or 'no points yet'}"


def _is_finite(point: Point) -> bool:
    return all(abs(number) < HUGE for number in point)  # false for NaN too


def _escaped(text: str) -> str:
    return escape(text, quote=True)
