"""A quantity over time as inline SVG, one line a series; colours by class from the page's style sheet."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from compress.report.markup import Html, element
from compress.report.svg import round_values

Line = tuple["npt.NDArray[np.float64]", "npt.NDArray[np.float64]"]
LEFT, RIGHT, TOP, BOTTOM = 46.0, 312.0, 8.0, 138.0
POINTS = 240  # of a line, each the mean of its stretch; the picture has no room for more


def over_time(series: Mapping[str, Line], shaded: "tuple[float, float] | None", label: str) -> Html:
    """Lines of (seconds (n,), values (n,)), all finite, n ≥ 1, by CSS class; `shaded` marks a stretch of time."""
    lines = {name: _thinned(*line) for name, line in series.items()}
    seconds = np.concatenate([line[0] for line in lines.values()])
    values = np.concatenate([line[1] for line in lines.values()])
    first, last = float(seconds.min()), float(seconds.max())
    low, high = _room(float(values.min()), float(values.max()))

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


def _room(low: float, high: float) -> tuple[float, float]:
    """Bounds that no line touches; 1 % of the value where all are equal."""
    margin = 0.05 * (high - low) or 0.01 * abs(high) or 1.0
    return low - margin, high + margin


def _thinned(seconds: "npt.NDArray[np.float64]", values: "npt.NDArray[np.float64]") -> Line:
    parts = min(POINTS, len(seconds))
    first, second = (np.array([part.mean() for part in np.array_split(row, parts)]) for row in (seconds, values))
    return first, second
