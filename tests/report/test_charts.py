"""Charts: whole, honest and legible on both kinds of page."""

from __future__ import annotations

import math
import random
import re
from xml.etree import ElementTree

import pytest

from lavis_lite.report.charts import COLORS, MARKED_POINTS, line_chart, thin

SVG = "{http://www.w3.org/2000/svg}"


def draw(series: dict, title: str = "Loss") -> ElementTree.Element:
    return ElementTree.fromstring(line_chart(series, title, "step"))


def texts(svg: ElementTree.Element) -> list[str]:
    return [element.text for element in svg.iter(f"{SVG}text")]


def lines(svg: ElementTree.Element) -> list[ElementTree.Element]:
    """Return the paths of the series; those of a legend are shorter."""
    paths = [path for path in svg.iter(f"{SVG}path") if "stroke-width: 2" in path.get("style")]
    return paths[: len(paths) // 2] if len(paths) > 1 else paths


def circles(svg: ElementTree.Element) -> list[ElementTree.Element]:
    return list(svg.iter(f"{SVG}circle"))


def test_a_chart_names_itself_its_axes_and_its_lines() -> None:
    shown = texts(draw({"train": [(0, 2), (1, 1)], "val": [(0, 3), (1, 2)]}))
    assert {"Loss", "step", "train", "val"} <= set(shown)


def test_ticks_stand_where_their_values_are() -> None:
    svg = draw({"loss": [(0, 2.0), (100, 3.0)]})
    y_of_text = {element.text: float(element.get("y")) for element in svg.iter(f"{SVG}text")}
    lowest, highest = circles(svg)
    assert y_of_text["2.0"] - 5 == pytest.approx(float(lowest.get("cy")), abs=1)
    assert y_of_text["3.0"] - 5 == pytest.approx(float(highest.get("cy")), abs=1)
    assert float(lowest.get("cx")) < float(highest.get("cx"))
    assert float(lowest.get("cy")) > float(highest.get("cy"))


def test_pointing_at_a_value_says_it() -> None:
    (circle,) = circles(draw({"val": [(1500, 0.123456)]}))
    assert circle.find(f"{SVG}title").text == "val: 0.123456 at step 1500"


def test_those_who_cannot_see_are_told_where_each_line_goes() -> None:
    assert draw({"loss": [(0, 4), (9, math.nan), (10, 1.5)]}).get("aria-label") == (
        "Loss: loss goes from 4 to 1.5"
    )


def test_markup_in_names_and_titles_is_only_text() -> None:
    evil = '"><script>alert(1)</script>&'
    svg = draw({evil: [(0, 1), (1, 2)]}, title=evil)
    assert not list(svg.iter(f"{SVG}script"))
    assert evil in texts(svg)


def test_a_value_that_is_not_finite_leaves_a_gap_and_is_counted() -> None:
    svg = draw({"loss": [(0, 1.0), (1, 2.0), (2, math.nan), (3, math.inf), (4, 1.0), (5, 2.0)]})
    assert "2 not finite" in texts(svg)
    line = lines(svg)[0]
    assert line.get("d").count("M") == 2
    assert len(circles(svg)) == 4


@pytest.mark.parametrize("series", [{}, {"loss": []}, {"loss": [(0, math.nan)]}])
def test_a_chart_of_nothing_says_so(series: dict) -> None:
    assert "no points yet" in texts(draw(series))


@pytest.mark.parametrize("value", [0.0, -2.5, 1e-320, 1e80])
def test_a_single_point_of_any_size_is_drawn(value: float) -> None:
    svg = draw({"loss": [(0, value)]})
    assert len(circles(svg)) == 1 and "1 not finite" not in texts(svg)


def test_a_value_too_large_to_draw_is_counted() -> None:
    svg = draw({"loss": [(0, 1e300)]})
    assert not circles(svg) and "1 not finite" in texts(svg)


def test_points_out_of_order_are_joined_in_order() -> None:
    assert line_chart({"a": [(2, 1), (0, 3), (1, 2)]}, "t", "x") == line_chart(
        {"a": [(0, 3), (1, 2), (2, 1)]}, "t", "x"
    )


def test_everything_stays_inside_the_picture() -> None:
    generator = random.Random(5)
    for _ in range(50):
        scale = 10 ** generator.uniform(-6, 8)
        points = [(generator.random() * scale, generator.gauss(0, scale)) for _ in range(20)]
        svg = draw({"loss": points})
        width, height = map(float, svg.get("viewBox").split()[2:])
        for circle in circles(svg):
            assert 0 <= float(circle.get("cx")) <= width
            assert 0 <= float(circle.get("cy")) <= height


def test_a_long_run_makes_a_small_chart_that_keeps_its_spike() -> None:
    points = [(step, 1.0) for step in range(100_000)]
    points[54_321] = (54_321, 9.0)
    chart = line_chart({"loss": points}, "Loss", "step")
    assert len(chart) < 60_000
    assert "loss: 9 at step 54321" in chart


def test_thinning_keeps_ends_and_limit() -> None:
    points = [(float(x), math.sin(x)) for x in range(1000)]
    thinned = thin(points, 100)
    assert len(thinned) <= 100
    assert (thinned[0], thinned[-1]) == (points[0], points[-1])
    assert thinned == sorted(thinned)
    assert thin(points, 1000) == points


def test_few_points_are_marked_and_many_only_when_pointed_at() -> None:
    few = circles(draw({"a": [(x, x) for x in range(MARKED_POINTS)]}))
    many = circles(draw({"a": [(x, x) for x in range(MARKED_POINTS + 1)]}))
    assert few[0].get("fill-opacity") is None
    assert many[0].get("fill-opacity") == "0"


def test_more_lines_than_colours_can_still_be_told_apart() -> None:
    series = {f"loss {index}": [(0, index), (1, index)] for index in range(2 * len(COLORS))}
    styles = {line.get("style") for line in lines(draw(series))}
    assert len(styles) == 2 * len(COLORS)


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("page", ["#ffffff", "#1b1e23"])
def test_each_line_is_legible_on_light_and_dark(color: str, page: str) -> None:
    lighter, darker = sorted((luminance(color), luminance(page)), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 3


def test_axes_and_texts_take_the_colour_of_the_page() -> None:
    chart = line_chart({"a": [(0, 1), (1, 2)]}, "t", "x")
    colors = re.findall(r'(?:stroke|fill)(?:="|: )([^";]+)', chart)
    assert set(colors) == {"currentColor", "none", COLORS[0]}


def test_charts_of_one_page_share_no_id_and_no_style() -> None:
    svg = draw({"a": [(0, 1), (1, 2)], "b": [(0, 1)]})
    assert not [element for element in svg.iter() if "id" in element.attrib]
    assert not list(svg.iter(f"{SVG}style")) and not list(svg.iter(f"{SVG}metadata"))


def test_a_name_may_hold_anything() -> None:
    names = ["$a_b$", "_hidden", "כדור", "a\x00b", "\ud800"]
    svg = draw({name: [(0, 1), (1, 2)] for name in names})
    assert set(texts(svg)) >= {"$a_b$", "_hidden", "כדור", "a\ufffdb", "\ufffd"}
