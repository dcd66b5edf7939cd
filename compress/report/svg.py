"""Charts as inline SVG. Colours come from the page's style sheet, by class, so that they follow its light and dark.

Bars and histograms place everything in per cent of the width and keep the text at its own size, so they fill a
phone as well as a sheet of paper; curves, which cannot, are small.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from compress.report.markup import Html, element, join
from edge.core import readable

BINS = 100
HAIR = 1.5  # pixels
SPAN = 86.0  # per cent of the width that stands for all of the axis; the rest is room for the last number


class Bar(NamedTuple):
    """One bar: its series (a CSS class), a share in [0, 1], and perhaps an interval; `bound` draws it hollow."""

    series: str
    share: float
    interval: "tuple[float, float] | None" = None
    bound: bool = False


def _across(share: float) -> str:
    return f"{SPAN * share:.3f}%"


def _chart(height: int, label: str, kind: str, *children: Html) -> Html:
    return element("svg", *children, class_=f"chart {kind}", width="100%", height=height, role="img", aria_label=label)


def bars(rows: "Sequence[tuple[str, Sequence[Bar]]]", label: str) -> Html:
    """Horizontal bars on an axis from 0 to 100 %, grouped: each row its name, then its bars."""
    parts, top = [], 0
    for name, group in rows:
        parts.append(element("text", name, x=0, y=top + 14, class_="name"))
        top += 20
        for bar in group:
            parts.extend(_bar(bar, top))
            top += 15
        top += 10
    ticks = [share / 100 for share in (0, 25, 50, 75, 100)]
    return _chart(top + 18, label, "bars", *_grid([(x, f"{100 * x:.0f}") for x in ticks], 0, top), *parts)


def _bar(bar: Bar, top: int) -> Iterator[Html]:
    look = f"{bar.series} bound" if bar.bound else bar.series
    yield element("rect", x=0, y=top, width=_across(bar.share), height=11, class_=look)
    end = bar.share
    if bar.interval is not None:
        low, end = bar.interval
        middle = top + 5.5
        for look in ("whisker halo", "whisker"):  # the halo keeps it visible on every bar
            yield element("line", x1=_across(low), x2=_across(end), y1=middle, y2=middle, class_=look)
    text = ("≤ " if bar.bound else "") + readable.percent(bar.share)
    yield element("text", text, x=_across(end), dx=5, y=top + 10, class_="value")


def amounts(rows: "Sequence[tuple[str, Sequence[tuple[float, str]]]]", label: str) -> Html:
    """Horizontal bars from 0 to the largest value, grouped: each row its name, then its values with their texts."""
    most = max((value for _, group in rows for value, _ in group), default=1.0)
    parts, top = [], 0
    for name, group in rows:
        parts.append(element("text", name, x=0, y=top + 14, class_="name"))
        top += 20
        for value, text in group:
            share = 0.8 * value / most  # texts are longer than those of shares
            parts.append(element("rect", x=0, y=top, width=_across(share), height=11, class_="column"))
            parts.append(element("text", text, x=_across(share), dx=5, y=top + 10, class_="value"))
            top += 15
        top += 10
    return _chart(top, label, "bars", *parts)


def _grid(ticks: "Sequence[tuple[float, str]]", top: int, bottom: int) -> Iterator[Html]:
    """Vertical lines at shares of the axis, each with its text below."""
    for share, text in ticks:
        x = _across(share)
        yield element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid")
        anchor = "start" if share == 0 else "middle"
        yield element("text", text, x=x, y=bottom + 14, class_="tick", text_anchor=anchor)


def histogram(
    values: "npt.NDArray[np.float64]", marks: Mapping[str, float], low: float, high: float, unit: str, label: str
) -> Html:
    """How `values` (n,), all in [low, high], fall on a logarithmic axis, with named marks on it.

    Bins are equally wide on that axis; a bin that holds anything is at least a hair high, so that a tail is seen.
    """

    def at(value: float) -> float:
        return math.log(value / low) / math.log(high / low)

    counts, edges = np.histogram(np.log(values / low) / np.log(high / low), bins=BINS, range=(0.0, 1.0))
    top, bottom = 16 * len(marks) + 6, 16 * len(marks) + 96
    heights = np.maximum(counts * (bottom - top) / max(1, int(counts.max())), HAIR)
    columns = [
        element(
            "rect",
            x=_across(left),
            width=_across(1 / BINS),
            y=f"{bottom - height:.2f}",
            height=f"{height:.2f}",
            class_="column",
        )
        for count, height, left in zip(counts.tolist(), heights.tolist(), edges[:-1].tolist(), strict=True)
        if count
    ]
    ticks = [(at(value), f"{value:g}") for value in log_values(low, high)]
    named = [_mark(name, at(value), 12 + 16 * row, bottom) for row, (name, value) in enumerate(marks.items())]
    axis = element("text", unit, x="100%", y=bottom + 14, class_="tick", text_anchor="end")
    return _chart(bottom + 20, label, "histogram", *_grid(ticks, top, bottom), *columns, *named, axis)


def _mark(text: str, share: float, top: int, bottom: int) -> Html:
    x, right = _across(share), share > 0.6
    line = element("line", x1=x, x2=x, y1=top - 9, y2=bottom, class_="mark")
    anchor, offset = ("end", -5) if right else ("start", 5)
    return join([line, element("text", text, x=x, dx=offset, y=top, class_="name", text_anchor=anchor)])


def log_values(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis: 1, 2, 5 of each decade, only 1 where that is many, finer where few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1,)):
        rounded = [float(f"{digit}e{power}") for power in powers for digit in digits]
        ticks = [value for value in rounded if low <= value <= high]
        if len(ticks) <= 8:
            break
    return ticks if len(ticks) >= 3 else round_values(low, high)


def round_values(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) inside [low, high], at most about `about` of them."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def curves(series: "Mapping[str, Sequence[tuple[int, float]]]", best: "int | None", label: str) -> Html:
    """Shares in [0, 1] over epochs, a line a series (its CSS class), the epoch that was kept marked."""
    left, right, top, bottom = 30.0, 312.0, 8.0, 138.0
    epochs = [epoch for points in series.values() for epoch, _ in points]
    first, last = min(epochs), max(epochs)

    def place(epoch: int, share: float) -> str:
        x = left + (right - left) * ((epoch - first) / (last - first) if last > first else 0.5)
        return f"{x:.1f},{bottom - (bottom - top) * share:.1f}"

    parts = []
    for share in (0.0, 0.5, 1.0):
        y = place(first, share).split(",")[1]
        parts.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        text = f"{100 * share:.0f}"
        parts.append(element("text", text, x=left - 6, y=float(y) + 4, class_="tick", text_anchor="end"))
    for epoch in sorted({first, last}):
        x = place(epoch, 0).split(",")[0]
        parts.append(element("text", epoch, x=x, y=bottom + 15, class_="tick", text_anchor="middle"))
    for name, points in series.items():
        parts.append(element("polyline", points=" ".join(place(*point) for point in points), class_=f"curve {name}"))
        for x, y in (place(*point).split(",") for point in points if point[0] == best or first == last):
            parts.append(element("circle", cx=x, cy=y, r=3.5, class_=name))
    return element("svg", *parts, class_="chart curves", viewBox="0 0 320 158", role="img", aria_label=label)


Line = tuple["npt.NDArray[np.float64]", "npt.NDArray[np.float64]"]
LEFT, RIGHT, TOP, BOTTOM = 46.0, 312.0, 8.0, 138.0
POINTS = 240  # of a line, each the mean of its stretch; the picture has no room for more


def over_time(series: Mapping[str, Line], shaded: "tuple[float, float] | None", label: str) -> Html:
    """Lines of (seconds (n,), values (n,)), all finite, n ≥ 1, by CSS class; `shaded` marks a stretch of time."""
    lines = {name: _thinned(*line) for name, line in series.items()}
    seconds = np.concatenate([line[0] for line in lines.values()])
    values = np.concatenate([line[1] for line in lines.values()])
    first, last = float(seconds.min()), float(seconds.max())
    low, high = float(values.min()), float(values.max())
    # bounds that no line touches; 1 % of the value where all are equal
    margin = 0.05 * (high - low) or 0.01 * abs(high) or 1.0
    low, high = low - margin, high + margin

    def x(second: float) -> float:
        return LEFT + (RIGHT - LEFT) * ((second - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low)

    parts = []
    if shaded is not None:
        begin, end = (x(min(max(second, first), last)) for second in shaded)
        width = f"{max(1.0, end - begin):.1f}"
        parts.append(element("rect", x=f"{begin:.1f}", y=TOP, width=width, height=BOTTOM - TOP, class_="shaded"))
    for value in round_values(low, high, 4):
        at = f"{y(value):.1f}"
        parts.append(element("line", x1=LEFT, x2=RIGHT, y1=at, y2=at, class_="grid"))
        parts.append(_text(f"{value:g}", LEFT - 6, y(value) + 4, "end"))
    parts += [_text(f"{second - first:.1f} s", x(second), BOTTOM + 15, "middle") for second in sorted({first, last})]
    for name, line in lines.items():
        points = " ".join(
            f"{x(second):.1f},{y(value):.1f}" for second, value in zip(*(row.tolist() for row in line), strict=True)
        )
        parts.append(element("polyline", points=points, class_=f"curve {name}"))
    return element("svg", *parts, class_="chart curves", viewBox="0 0 320 158", role="img", aria_label=label)


def _text(text: str, x: float, y: float, anchor: str) -> Html:
    return element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", class_="tick", text_anchor=anchor)


def _thinned(seconds: "npt.NDArray[np.float64]", values: "npt.NDArray[np.float64]") -> Line:
    parts = min(POINTS, len(seconds))
    first, second = (np.array([part.mean() for part in np.array_split(row, parts)]) for row in (seconds, values))
    return first, second
