"""A stage made by all ranks: rank 0 alone holds its folder."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from compress.numerics.ranks.group import broadcast, rank, world
from edge.core import artifact
from edge.core.artifact import Plan, Stage, Work


def build(
    out: "Path | str",
    plan: Plan,
    make: Callable[[Work], None],
    *,
    lineage: "Mapping[str, Path] | None" = None,
    keep: Sequence[str] = (),
    replace: bool = False,
) -> Stage:
    """As `artifact.build`, for a `make` in which the ranks work together.

    The others call `make` when rank 0 does, with a folder of their own that is thrown away; the stage's is rank 0's,
    so it need not be within their reach.
    """
    if world() == 1:
        return artifact.build(out, plan, make, lineage=lineage, keep=keep, replace=replace)
    if rank() > 0:
        if broadcast(False):
            with tempfile.TemporaryDirectory() as scratch:
                make(Work(Path(scratch)))
        return broadcast(Stage(Path(out), {}))
    called = False

    def make_together(work: Work) -> None:
        nonlocal called
        called = broadcast(True)
        make(work)

    stage = artifact.build(out, plan, make_together, lineage=lineage, keep=keep, replace=replace)
    if not called:
        broadcast(False)
    return broadcast(stage)
