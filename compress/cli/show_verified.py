"""Several verified artifacts in one table: figures in one half, accuracy by attack in the other."""

from collections.abc import Sequence

from edge.core.readable import table
from edge.statement.statement import Predicate, Statement

TITLES = ["artifact", "precision", "clean", "robust", "95 % interval", "agreement", "p50", "size"]


def side_by_side(named: Sequence[tuple[str, Statement]]) -> list[str]:
    """A row an artifact; then a row an attack, with its accuracy on each artifact, `–` where it did not run."""
    rows = [[name, *_figures(stated.predicate)] for name, stated in named]
    by_name = [{row.name: row.robust_accuracy for row in stated.predicate.attacks} for _, stated in named]
    names = dict.fromkeys(name for accuracies in by_name for name in accuracies)
    attacks = [[name, *(f"{of[name]:.1%}" if name in of else "–" for of in by_name)] for name in names]
    columns = ["attack", *(name for name, _ in named)]
    return ["", *table(TITLES, rows), "", *(table(columns, attacks) if attacks else [])]


def _figures(predicate: Predicate) -> list[str]:
    figures, agreement = predicate.figures, predicate.agreement
    worst = figures.worst
    low, high = worst.interval
    return [
        predicate.artifact.precision,
        f"{figures.clean.value:.1%}",
        f"{worst.value:.1%}" if figures.robust else f"≤ {worst.value:.1%}",
        f"{low:.1%} to {high:.1%}",
        "–" if agreement is None else f"{agreement.clean.argmax_agreement:.1%}",
        f"{predicate.latency['p50_ms']:.3f} ms",
        f"{predicate.artifact.bytes:,} B",
    ]
