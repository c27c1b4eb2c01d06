"""Charts as inline SVG: data in, markup out, every text escaped. Colours come from the page's stylesheet."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Literal

Reading = Literal["better", "worse", "unclear"]
"""What a confidence interval says about the adapter."""

MINUS = "\N{MINUS SIGN}"
WIDTH = 460
"""Width of a chart in its own units; at this width text is legible on a phone and quiet on a desk."""
HEIGHT = 264
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 34, 46
LETTER = 7.0
"""Estimated width of one letter of chart text."""
MOST_DOTS = 40
"""A strong line of more points than this is drawn without a dot on each."""


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]
    """(x, y), in the order of x. Points that are not finite are left out and counted in the legend."""
    strong: bool = True
    """Strong lines carry the message, faint ones the context."""


@dataclass(frozen=True)
class Mark:
    """One place on the x axis worth a word."""

    x: float
    label: str


@dataclass(frozen=True)
class Part:
    """One part of a whole."""

    name: str
    size: float
    label: str
    """The size as a person would write it."""


def line_chart(
    series: Sequence[Series], title: str, x_label: str, y_label: str = "", mark: Mark | None = None, most: int = 400
) -> str:
    """Lines over axes; long series are thinned to about `most` points that keep every peak."""
    drawn = [Series(s.name, thinned(finite(s.points), most), s.strong) for s in series]
    if not any(s.points for s in drawn):
        return _nothing(title)
    across = _Axis.over([x for s in drawn for x, _ in s.points], LEFT, WIDTH - RIGHT, whole=True)
    up = _Axis.over([y for s in drawn for _, y in s.points], HEIGHT - BOTTOM, TOP)
    parts = [
        *_horizontal_axis(across, x_label),
        *_vertical_axis(up, y_label),
        *(_line(s, across, up) for s in drawn),
        *(_mark(mark, drawn, across, up) if mark else []),
        *(_legend(series) if len(series) > 1 else []),
    ]
    return _svg(WIDTH, HEIGHT, title, parts)


def forest_row(difference: float, interval: tuple[float, float], limit: float, reading: Reading, title: str) -> str:
    """A difference and its interval against zero, over -limit to +limit. Better is to the right: negate what is not."""
    width, height, middle = 240, 46, 16
    if any(map(math.isnan, (difference, *interval))):
        return _svg(width, height, title, [_text("no interval", width / 2, middle + 4, "middle")])

    def place(value: float) -> float:
        return width / 2 + max(-1.0, min(1.0, value / limit if limit else 0.0)) * (width / 2 - 12)

    low, high = (place(bound) for bound in interval)
    return _svg(
        width,
        height,
        title,
        [
            _tag("line", {"class": "grid", "x1": 4, "x2": width - 4, "y1": middle, "y2": middle}),
            _tag("line", {"class": "zero", "x1": width / 2, "x2": width / 2, "y1": 3, "y2": 29}),
            _tag("line", {"class": f"interval {reading}", "x1": low, "x2": high, "y1": middle, "y2": middle}),
            *(_tag("line", {"class": f"end {reading}", "x1": x, "x2": x, "y1": 11, "y2": 21}) for x in (low, high)),
            _tag("circle", {"class": f"estimate {reading}", "cx": place(difference), "cy": middle, "r": 5}),
            _text("worse", 4, 42, "start"),
            _text("0", width / 2, 42, "middle"),
            _text("better", width - 4, 42, "end"),
        ],
    )


def stacked_bar(parts: Sequence[Part], title: str) -> str:
    """One bar divided in proportion, with the name and label of every part below it, in the same order."""
    total = sum(part.size for part in parts)
    if total <= 0:
        return _nothing(title, height=78)
    drawn: list[str] = []
    start = 0.0
    for place, part in enumerate(parts):
        width = WIDTH * part.size / total
        drawn.append(_block(place, start, max(width - 2, 0.5) if part.size else 0, 0, 22))
        start += width
        column = place * WIDTH / len(parts)
        drawn.append(_block(place, column, 10, 36, 10))
        drawn.append(_text(part.name, column + 16, 45, "start", "name"))
        drawn.append(_text(part.label, column + 16, 62, "start"))
    return _svg(WIDTH, 70, title, drawn)


def finite(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that can be drawn."""
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """About `most` points: the first, the last, and the lowest and highest of every stretch between."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(2 * len(points) / most)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), size):
        stretch = range(start, min(start + size, len(points)))
        kept |= {min(stretch, key=lambda i: points[i][1]), max(stretch, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def nice_step(span: float, most: int = 5) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that divides `span` into at most `most` steps."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power * most >= span * (1 - 1e-9))


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Multiples of a nice step that enclose low to high; equal values get room on both sides."""
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(low) / 2 or 1.0
        low, high = low - room, high + room
    step = nice_step(high - low, most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Evenly spaced values with as many digits as their step needs: 1,200 or 0.05, small and large ones as 2e-5."""
    largest = max(map(abs, ticks))
    step = min((after - before for before, after in pairwise(ticks)), default=1.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    plain = 0.01 <= largest < 1e6
    return [(MINUS if tick < 0 else "") + _magnitude(abs(tick), digits, plain) for tick in ticks]


def _magnitude(value: float, digits: int, plain: bool) -> str:
    if value == 0:
        return "0"
    if plain:
        return f"{value:,.{digits}f}"
    mantissa, exponent = f"{value:.5e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


@dataclass(frozen=True)
class _Axis:
    """Where values lie between two places, and the ticks between them."""

    low: float
    high: float
    start: float
    end: float
    ticks: list[float]

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, whole: bool = False) -> "_Axis":
        """Steps (whole) run from the first to the last; other values get room up to the next tick, and zero if near."""
        low, high = min(values), max(values)
        if whole:
            low, high = (low, high) if low < high else (low - 1, high + 1)
            inner = [tick for tick in nice_ticks(low, high) if low <= tick <= high and tick == round(tick)]
            return cls(low, high, start, end, inner)
        ticks = nice_ticks(0.0 if 0 <= low < high / 2 else low, high)
        return cls(ticks[0], ticks[-1], start, end, ticks)

    def place(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def labelled(self) -> list[tuple[float, str]]:
        return [(self.place(tick), text) for tick, text in zip(self.ticks, tick_labels(self.ticks), strict=True)]


def _horizontal_axis(axis: _Axis, label: str) -> list[str]:
    base = HEIGHT - BOTTOM
    return [
        _tag("line", {"class": "axis", "x1": LEFT, "x2": WIDTH - RIGHT, "y1": base, "y2": base}),
        *(_tag("line", {"class": "axis", "x1": x, "x2": x, "y1": base, "y2": base + 4}) for x, _ in axis.labelled()),
        *(_text(text, x, base + 18, "middle") for x, text in axis.labelled()),
        _text(label, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "middle"),
    ]


def _vertical_axis(axis: _Axis, label: str) -> list[str]:
    return [
        *(
            _tag("line", {"class": "grid", "x1": LEFT, "x2": WIDTH - RIGHT, "y1": y, "y2": y})
            for y, _ in axis.labelled()
        ),
        *(_text(text, LEFT - 8, y + 4, "end") for y, text in axis.labelled()),
        _text(label, 0, 14, "start"),
    ]


def _line(series: Series, across: _Axis, up: _Axis) -> str:
    weight = "strong" if series.strong else "faint"
    places = [(across.place(x), up.place(y)) for x, y in series.points]
    drawn = [_tag("polyline", {"class": f"line {weight}", "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in places)})]
    if len(places) == 1 or (series.strong and len(places) <= MOST_DOTS):
        drawn += [_tag("circle", {"class": f"dot {weight}", "cx": x, "cy": y, "r": 3}) for x, y in places]
    return "".join(drawn)


def _mark(mark: Mark, series: Sequence[Series], across: _Axis, up: _Axis) -> list[str]:
    """A dashed line with its label, and a ring round the strong points that lie on it."""
    if not across.low <= mark.x <= across.high:
        return []
    x = across.place(mark.x)
    rings = [up.place(y) for s in series if s.strong for at, y in s.points if at == mark.x]
    beside, anchor = (x - 7, "end") if x > (LEFT + WIDTH - RIGHT) / 2 else (x + 7, "start")
    return [
        _tag("line", {"class": "mark", "x1": x, "x2": x, "y1": TOP, "y2": HEIGHT - BOTTOM}),
        *(_tag("circle", {"class": "ring", "cx": x, "cy": y, "r": 6}) for y in rings),
        _text(mark.label, beside, TOP + 12, anchor, "name"),
    ]


def _legend(series: Sequence[Series]) -> list[str]:
    """Names at the top right, each behind a piece of its line."""
    drawn: list[str] = []
    end = float(WIDTH - RIGHT)
    for s in reversed(series):
        lost = len(s.points) - len(finite(s.points))
        name = f"{s.name} ({lost} not finite)" if lost else s.name
        start = end - LETTER * len(name) - 28
        weight = "strong" if s.strong else "faint"
        drawn.append(_tag("line", {"class": f"line {weight}", "x1": start, "x2": start + 22, "y1": 10, "y2": 10}))
        if s.strong:
            drawn.append(_tag("circle", {"class": f"dot {weight}", "cx": start + 11, "cy": 10, "r": 3}))
        drawn.append(_text(name, start + 28, 14, "start"))
        end = start - 16
    return drawn


def _block(place: int, x: float, width: float, y: float, height: float) -> str:
    return _tag("rect", {"class": f"part part-{place}", "x": x, "y": y, "width": width, "height": height, "rx": 1})


def _nothing(title: str, height: int = HEIGHT) -> str:
    return _svg(WIDTH, height, title, [_text("no data", WIDTH / 2, height / 2, "middle")])


def _svg(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    drawn = "".join(parts)
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img"><title>{escape(title)}</title>{drawn}</svg>'


def _text(content: str, x: float, y: float, anchor: str, kind: str = "") -> str:
    named = {"class": kind} if kind else {}
    return _tag("text", {**named, "x": x, "y": y, "text-anchor": anchor}, escape(content))


def _tag(name: str, attributes: dict[str, str | float], inside: str = "") -> str:
    written = "".join(
        f' {key}="{escape(value) if isinstance(value, str) else format(value, ".6g")}"'
        for key, value in attributes.items()
    )
    return f"<{name}{written}>{inside}</{name}>"
