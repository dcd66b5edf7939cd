"""Numbers as people read them. Standard library only."""

from collections.abc import Mapping, Sequence
from typing import Any

THIN = "\u202f"  # narrow no-break space, between a number and its unit
NONE = "–"


def percent(share: "float | None") -> str:
    """0.7806 → `78.1 %`."""
    return NONE if share is None else f"{100 * share:.1f}{THIN}%"


def interval(figure: Mapping[str, Any]) -> str:
    """The figure's interval: `73.5–82.2 %`."""
    low, high = figure["interval"]
    return f"{100 * low:.1f}–{100 * high:.1f}{THIN}%"


def counted(figure: Mapping[str, Any]) -> str:
    """`281 of 360`."""
    return f"{number(figure['count'])} of {number(figure['n'])}"


def number(value: "float | None") -> str:
    """An integer with thousands separated, another number with four significant digits."""
    if value is None:
        return NONE
    return f"{value:,d}" if isinstance(value, int) else f"{value:.4g}"


def size(count: "int | None") -> str:
    """Bytes in decimal units with three significant digits: 84,113 → `84.1 kB`."""
    if count is None:
        return NONE
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{count}{THIN}B" if unit == "B" else f"{value:#.3g}".rstrip(".") + f"{THIN}{unit}"


def milliseconds(value: "float | None") -> str:
    """Three significant digits, whole from 100 on: 0.08124 → `0.0812 ms`."""
    if value is None:
        return NONE
    return (f"{value:,.0f}" if value >= 100 else f"{value:#.3g}") + f"{THIN}ms"


def duration(seconds: "float | None") -> str:
    """`8.3 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.1f}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {rest:02d}{THIN}s"
    return f"{minutes // 60}{THIN}h {minutes % 60:02d}{THIN}min"


def short(digest: str) -> str:
    """The first 12 digits of a sha256: enough to tell things apart."""
    return digest[:12]


def norm(name: str) -> str:
    """`linf` → `L∞`."""
    return {"linf": "L∞"}.get(name, name)


def moment(text: "str | None") -> str:
    """An ISO 8601 time in UTC: `2026-01-31 09:05 UTC`; of another form it stays as it is."""
    if text is None:
        return NONE
    return f"{text[:10]} {text[11:16]} UTC" if text.endswith("+00:00") else text


def flat(value: Any) -> str:
    """A value of a record on one line: lists with commas, mappings as `key value`, null as a dash."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {flat(item)}" for key, item in value.items()) or NONE
    if isinstance(value, (list, tuple)):
        return ", ".join(flat(item) for item in value) or NONE
    return number(value) if isinstance(value, float) else str(value)


def change(before: Any, after: Any) -> str:
    """Two values of a record as `flat` gives them, `before → after` where they differ."""
    first, last = flat(before), flat(after)
    return first if first == last else f"{first} → {last}"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, the first flush left and the others right."""
    widths = [max(len(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
    return [
        "  ".join(f"{cell:>{width}}" if i else f"{cell:<{width}}" for i, (cell, width) in enumerate(cells)).rstrip()
        for cells in (list(zip(row, widths, strict=True)) for row in (titles, *rows))
    ]


def file_size(count: int) -> str:
    """That many bytes for a person: `89.5 kB`, `1.38 MB`."""
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
