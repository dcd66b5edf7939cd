"""A comparison as `edge.statement.compare.compare` returns it, for a person at a terminal and as cases of a gate."""

from collections.abc import Mapping, Sequence
from typing import Any

from edge.statement.compare import INCONCLUSIVE, WORSE
from edge.statement.gate_formats import FAILED, PASSED, SKIPPED, Case

SHOWN = 5  # rows of attacks, classes and images

Found = Mapping[str, Any]


def lines(found: Found) -> list[str]:
    """Verdict, both shares, latency, and the first few of what got worse."""
    p50 = found["latency"]["p50_ms"]
    worse_attacks = [row for row in found["attacks"] if row["difference"] < 0]
    worse_classes = [row for row in found["classes"] if row["robust"]["difference"] < 0]
    fallen = found["images"]["fallen"]
    return [
        f"against     {found['baseline']['name']}: {_bytes(found)}{_sets(found)}",
        f"  verdict   {found['verdict']}, margin {found['margin_points']:g} points",
        *(f"  {name:<9} {share(found[name])}" for name in ("clean", "robust")),
        f"  latency   p50 {p50[0]:.3f} ms, was {p50[1]:.3f} ms (side by side, not tested)",
        *_few("attacks", worse_attacks, lambda row: f"{row['name']} {_points(row['difference'])}"),
        *_few("classes", worse_classes, lambda row: f"{row['class']} {_points(row['robust']['difference'])}"),
        *_few("images", fallen, lambda row: f"{row['index']} (class {row['class']}, {_by(row)})"),
    ]


def share(row: Found) -> str:
    """`73.5% was 75.2%: -1.7 points (95% interval -3.6 to 0.1; lost 8, gained 2, McNemar p 0.109): inconclusive`."""
    low, high = (100 * end for end in row["interval"])
    now, before = row["shares"]
    said = (
        f"{now:.1%}, was {before:.1%}: {_points(row['difference'])} points ({row['level']:.0%} interval {low:+.2f} to "
        f"{high:+.2f}; lost {row['lost']}, gained {row['gained']}, McNemar p {row['p']:.3g}): {row['verdict']}"
    )
    return "; ".join([said, *row["doubts"]])


def cases(found: Found, *, strict: bool, of: str = "") -> list[Case]:
    """Clean and robust accuracy as one case each, `of` before its name; inconclusive fails only where `strict`."""
    results = {WORSE: FAILED, INCONCLUSIVE: FAILED if strict else SKIPPED}
    return [
        Case(
            "comparison",
            f"{of}{name} not worse than {found['baseline']['name']} by {found['margin_points']:g} points",
            results.get(found[name]["verdict"], PASSED),
            share(found[name]),
        )
        for name in ("clean", "robust")
    ]


def _bytes(found: Found) -> str:
    new, old = found["artifact"]["sha256"], found["baseline"]["sha256"]
    return f"same bytes, {new[:12]}" if found["same_bytes"] else f"bytes differ, {new[:12]} was {old[:12]}"


def _sets(found: Found) -> str:
    return {True: ", same attack set", False: ", another attack set of the same images", None: ""}[
        found["same_attack_set"]
    ]


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}"


def _by(row: Found) -> str:
    return ", ".join(row["by"]) or "wrong when clean"


def _few(what: str, rows: Sequence[Found], said: Any) -> list[str]:
    if not rows:
        return []
    more = f"; and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return [f"  worse     {what}: {'; '.join(said(row) for row in rows[:SHOWN])}{more}"]
