"""The figure of an analysis: robust accuracy against two gaps over radii, and across models at one radius."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Okabe & Ito (2008): told apart with any colour vision; markers and dashes tell the models apart beyond eight.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")
PANELS = {
    "variance": r"(tr $C_{adv}$ − tr $C_{clean}$) / tr $C_{clean}$",
    "image_gram": r"$\|G_{adv} − G_{clean}\|_F\;/\;\|G_{clean}\|_F$",
}
TITLES = {"variance": "Variance gap over radii", "image_gram": "Gram gap over radii"}
MOST_IN_LEGEND = 12
DPI = 130


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Write the PNG of an analysis (`analysis.json`) to `path`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [model for model in found["models"] if model["epoch"] is None]
    lines = min(len(shown), MOST_IN_LEGEND) + (len(shown) > MOST_IN_LEGEND)
    figure = Figure(figsize=(15, 5 + 0.24 * lines), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    styles = _styles(found["models"])
    axes = figure.subplots(1, 3)
    for axis, gap in zip(axes, PANELS, strict=False):
        _over_radii(axis, found, gap, styles)
    _across(axes[2], found, styles)
    data = found["data"]
    figure.suptitle(
        f"{data['name']}, {data['n']} test images, PGD-{found['attack']['steps']}, L∞; "
        f"intervals {100 * found['level']:.0f} %, {found['bootstrap']:,} resamples",
        fontsize=10,
        color="#555555",
    )
    figure.savefig(path, format="png", metadata={"Software": None})


def _styles(models: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """One look a stage; its checkpoints share it."""
    stages = list(dict.fromkeys(model["identity"] for model in models))
    return {
        identity: {
            "color": COLOURS[k % len(COLOURS)],
            "marker": MARKERS[k % len(MARKERS)],
            "linestyle": DASHES[k // len(COLOURS) % len(DASHES)],
        }
        for k, identity in enumerate(stages)
    }


def _over_radii(axis: Any, found: Mapping[str, Any], gap: str, styles: Mapping[str, Mapping[str, Any]]) -> None:
    named = 0
    for model in found["models"]:
        points = [(row[f"relative_{gap}_gap"], 100 * row["robust"]) for row in model["radii"]]
        own = model["epoch"] is None
        named += own
        label = (
            f"{model['name']}: {_r(model['over_radii'][gap]['pearson'])}" if own and named <= MOST_IN_LEGEND else None
        )
        x, y = zip(*[(a, b) for a, b in points if a is not None] or [(float("nan"), 0)], strict=True)
        look = {**styles[model["identity"]], "alpha": 1 if own else 0.25, "zorder": 3 if own else 2}
        axis.plot(x, y, label=label, markersize=5 if own else 0, linewidth=1.6 if own else 0.9, **look)
    if named > MOST_IN_LEGEND:
        axis.plot([], [], " ", label=f"and {named - MOST_IN_LEGEND} more, in analysis.json")
    _frame(axis, TITLES[gap], PANELS[gap], "robust accuracy in %")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False, fontsize=8.5, borderaxespad=0)


def _across(axis: Any, found: Mapping[str, Any], styles: Mapping[str, Mapping[str, Any]]) -> None:
    """Every model at eps; a ring marks a checkpoint."""
    across = found["across_models"]
    for model in found["models"]:
        row = next(row for row in model["radii"] if row["eps"] == found["eps"])
        if row["relative_variance_gap"] is None:
            continue
        look = styles[model["identity"]]
        face = {"markerfacecolor": look["color"] if model["epoch"] is None else "none"}
        axis.plot(
            row["relative_variance_gap"], 100 * row["robust"], look["marker"], color=look["color"], markersize=7, **face
        )
    _frame(axis, f"Across models at eps {found['eps']}", PANELS["variance"], "robust accuracy in %")
    axis.text(
        0.5, -0.16, _across_text(across), transform=axis.transAxes, ha="center", va="top", fontsize=8.5, linespacing=1.6
    )


def _across_text(across: Mapping[str, Any]) -> str:
    if "reason" in across:
        return str(across["reason"])
    rows = {row["name"]: row for row in across["predictors"]}
    names = ("relative_variance_gap", "relative_image_gram_gap", "clean_margin", "clean_accuracy")
    lines = [f"{rows[name]['label']}: {_r(rows[name], 'over_models')}" for name in names]
    return "\n".join([*lines, *([across["note"]] if across["note"] else [])])


def _frame(axis: Any, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=11)
    axis.set_xlabel(x, fontsize=9.5)
    axis.set_ylabel(y, fontsize=9.5)
    axis.set_ylim(-3, 103)
    axis.grid(color="#e4e4e4", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.locator_params(axis="x", nbins=6)
    axis.tick_params(labelsize=8.5)


def _r(entry: Mapping[str, Any], interval: str = "interval") -> str:
    """`r −0.98 [−0.99, −0.96]`."""
    if entry["r"] is None:
        return "r undefined"
    bounds = entry[interval]
    return f"r {_signed(entry['r'])}" + (f" [{_signed(bounds[0])}, {_signed(bounds[1])}]" if bounds else "")


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")
