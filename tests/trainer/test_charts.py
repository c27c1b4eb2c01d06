"""Charts as SVG, read back as XML."""

import math
from xml.etree import ElementTree

import pytest

from finetune_trainer.charts import (
    MOST_DOTS,
    WIDTH,
    Mark,
    Part,
    Series,
    forest_row,
    line_chart,
    nice_step,
    nice_ticks,
    stacked_bar,
    thinned,
    tick_labels,
)


def elements(svg: str, tag: str, kind: str = "") -> list[ElementTree.Element]:
    found = ElementTree.fromstring(svg).iter(tag)
    return [e for e in found if set(kind.split()) <= set(e.get("class", "").split())]


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in elements(svg, "text")]


def draw(*series: Series, mark: Mark | None = None) -> str:
    return line_chart(series, title="Loss", x_label="step", y_label="nats", mark=mark)


@pytest.mark.parametrize(("span", "want"), [(1.0, 0.2), (9.0, 2.0), (23.0, 5.0), (50.0, 10.0), (3e-5, 1e-5)])
def test_steps_are_one_two_or_five_times_a_power_of_ten(span: float, want: float) -> None:
    assert nice_step(span) == pytest.approx(want)


@pytest.mark.parametrize(("low", "high"), [(0.0, 3.04), (-7.0, 1e4), (1e-6, 2e-5), (0.999, 1.001), (-0.3, -0.1)])
def test_ticks_enclose_the_values_and_are_few(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low < high <= ticks[-1]
    assert 3 <= len(ticks) <= 7
    assert ticks[1] > low
    assert ticks[-2] < high


@pytest.mark.parametrize("value", [0.0, 2.0, -0.5, 1e-9, 1e12])
def test_equal_values_get_room_on_both_sides(value: float) -> None:
    ticks = nice_ticks(value, value)
    assert ticks[0] < value < ticks[-1]


@pytest.mark.parametrize(
    ("ticks", "want"),
    [
        ([0, 500, 1000], ["0", "500", "1,000"]),
        ([0, 0.05, 0.1], ["0", "0.05", "0.10"]),
        ([0, 5e-5, 1e-4, 1.5e-4, 2e-4], ["0", "5e-5", "1e-4", "1.5e-4", "2e-4"]),
        ([-1, 0, 1], ["\N{MINUS SIGN}1", "0", "1"]),
        ([1e6, 2e6], ["1e6", "2e6"]),
        ([3], ["3"]),
    ],
)
def test_ticks_are_written_with_the_digits_they_need(ticks: list[float], want: list[str]) -> None:
    assert tick_labels(ticks) == want


def test_a_line_goes_through_its_points_in_proportion() -> None:
    svg = draw(Series("training", [(0, 0.0), (50, 4.0), (100, 2.0)]))
    (line,) = elements(svg, "polyline")
    places = [tuple(map(float, place.split(","))) for place in line.get("points", "").split()]
    (x0, y0), (x1, y1), (x2, y2) = places
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(2 * (y0 - y2), abs=0.2)
    assert {"0", "1", "2", "3", "4", "20", "100", "step", "nats"} <= set(texts(svg))


def test_every_chart_is_an_image_with_a_title() -> None:
    charts = [
        draw(Series("a", [(1, 1.0), (2, 2.0)])),
        draw(),
        forest_row(0.5, (0.2, 0.8), 1.0, "better", "Loss"),
        stacked_bar([Part("train", 3, "3 rows")], "Loss"),
    ]
    for svg in charts:
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        assert root[0].tag == "title"
        assert root[0].text == "Loss"


@pytest.mark.parametrize("points", [[], [(1, math.nan), (2, math.inf)]])
def test_a_chart_without_a_point_says_so(points: list[tuple[float, float]]) -> None:
    assert texts(draw(Series("training", points))) == ["no data"]


def test_a_single_point_is_a_dot_even_on_a_faint_line() -> None:
    svg = draw(Series("training", [(7, 2.0)], strong=False))
    (dot,) = elements(svg, "circle", "dot")
    assert 0 < float(dot.get("cx", 0)) < WIDTH
    assert "7" in texts(svg)


def test_long_lines_carry_no_dots() -> None:
    points = [(step, 1 / step) for step in range(1, MOST_DOTS + 2)]
    assert not elements(draw(Series("learning rate", points)), "circle")
    assert len(elements(draw(Series("learning rate", points[:-1])), "circle")) == MOST_DOTS


def test_points_that_are_not_finite_are_left_out_and_counted() -> None:
    svg = draw(Series("training", [(1, 2.0), (2, math.nan), (3, 1.0)]), Series("validation", [(3, 1.5)]))
    assert "training (1 not finite)" in texts(svg)
    assert "nan" not in svg


def test_the_best_step_is_marked_and_ringed() -> None:
    validation = Series("validation", [(10, 2.0), (20, 1.0), (30, 1.2)])
    svg = draw(validation, mark=Mark(20, "best: step 20"))
    (ring,) = elements(svg, "circle", "ring")
    (line,) = elements(svg, "line", "mark")
    dots = elements(svg, "circle", "dot")
    assert (ring.get("cx"), ring.get("cy")) == (dots[1].get("cx"), dots[1].get("cy"))
    assert line.get("x1") == ring.get("cx")
    assert "best: step 20" in texts(svg)


def test_a_mark_outside_the_chart_is_not_drawn() -> None:
    svg = draw(Series("validation", [(10, 2.0), (20, 1.0)]), mark=Mark(5, "best: step 5"))
    assert not elements(svg, "line", "mark")


def test_thinning_keeps_peaks_and_ends() -> None:
    points = [(float(step), 1.0) for step in range(10_000)]
    points[4321] = (4321.0, 99.0)
    points[8765] = (8765.0, -99.0)
    kept = thinned(points, 400)
    assert len(kept) <= 402
    assert {points[0], points[4321], points[8765], points[-1]} <= set(kept)
    assert kept == sorted(kept)
    assert thinned(points[:400], 400) == points[:400]


def test_names_are_escaped() -> None:
    svg = draw(Series("<b>a</b>", [(1, 1.0)]), Series('"&', [(1, 2.0)]), mark=Mark(1, "<script>"))
    assert {"<b>a</b>", '"&', "<script>"} <= set(texts(svg))
    assert "<script>" not in svg
    assert "<i>" not in stacked_bar([Part("<i>", 1, "<i>")], "<i>")


def test_better_lies_right_of_zero_with_the_estimate_inside_its_interval() -> None:
    svg = forest_row(0.5, (0.25, 0.75), 1.0, "better", "Exact match")
    (estimate,), (interval,), (zero,) = (
        elements(svg, "circle", "estimate better"),
        elements(svg, "line", "interval better"),
        elements(svg, "line", "zero"),
    )
    places = [float(e.get(key, 0)) for e, key in [(zero, "x1"), (interval, "x1"), (estimate, "cx"), (interval, "x2")]]
    assert places == sorted(places)
    assert len(set(places)) == 4


def test_an_interval_beyond_the_scale_ends_at_its_edge() -> None:
    svg = forest_row(5.0, (-math.inf, math.inf), 1.0, "unclear", "Perplexity")
    (interval,) = elements(svg, "line", "interval")
    assert 0 < float(interval.get("x1", 0)) < float(interval.get("x2", 0)) < 240


def test_an_interval_of_no_width_at_zero_can_be_drawn() -> None:
    (estimate,) = elements(forest_row(0.0, (0.0, 0.0), 0.0, "unclear", "Exact match"), "circle")
    assert estimate.get("cx") == "120"


def test_a_missing_interval_says_so() -> None:
    assert texts(forest_row(1.0, (math.nan, math.nan), 1.0, "unclear", "Perplexity")) == ["no interval"]


def test_parts_of_a_bar_are_in_proportion_and_named() -> None:
    svg = stacked_bar(
        [Part("train", 75, "75 rows"), Part("validation", 0, "0 rows"), Part("test", 25, "25 rows")], "Rows"
    )
    widths = [float(e.get("width", 0)) + 2 for e in elements(svg, "rect") if e.get("y") == "0"]
    assert widths == pytest.approx([WIDTH * 0.75, 2, WIDTH * 0.25])
    assert texts(svg) == ["train", "75 rows", "validation", "0 rows", "test", "25 rows"]


@pytest.mark.parametrize("parts", [[], [Part("train", 0, "0 rows")]])
def test_a_bar_of_nothing_says_so(parts: list[Part]) -> None:
    assert texts(stacked_bar(parts, "Rows")) == ["no data"]
