"""The table of an export of everything."""

from collections.abc import Sequence

from edge.core.readable import table
from export.candidates import Candidate, CandidateTable

TITLES = ["candidate", "size", "logits differ by", "same class", "clean (val)", "p50", "state"]
STATES = ("executed", "built", "untested")


def lines(found: CandidateTable) -> list[str]:
    """A row a candidate that was made, below them those that were not and why, and what is to be said of INT8."""
    made = [row for row in found.rows if row.made]
    return [
        f"candidates  {found.folder}",
        *(f"  {line}" for line in table(TITLES, [_cells(row) for row in made])),
        *_grouped("not made", [row for row in found.rows if not row.made]),
        *(
            line
            for state in STATES
            for line in _grouped(state, [row for row in made if row.state == state and row.why])
        ),
        *(f"note: {line}" for line in found.said),
    ]


def _grouped(state: str, rows: Sequence[Candidate]) -> list[str]:
    """A line a reason, behind the names of those that share it."""
    reasons = dict.fromkeys(row.why for row in rows)
    return [f"  {state}  {', '.join(row.name for row in rows if row.why == why)}: {why}" for why in reasons]


def _cells(row: Candidate) -> list[str]:
    parity, clean, latency = row.parity, row.clean, row.latency
    return [
        row.name,
        f"{row.metrics['bytes'] / 1e3:,.1f} kB",
        f"{parity['max_abs']:.3g} of {parity['scale']:.3g}" if parity else "",
        f"{100 * parity['argmax_agreement']:.1f} %" if parity else "",
        f"{100 * clean['value']:.1f} % of {clean['n']}" if clean else "",
        f"{latency['p50_ms']:.3f} ms" if latency else "",
        row.state,
    ]
