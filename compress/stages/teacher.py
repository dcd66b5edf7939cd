"""The teacher stage: a network trained without a teacher of its own."""

import functools
from dataclasses import dataclass
from pathlib import Path

from compress.config import TeacherConfig
from compress.folders import lineage, plan_of
from edge.core.artifact import Plan, Stage


@dataclass(frozen=True)
class TeacherInputs:
    """A teacher that is trained from scratch reads no stage."""


def plan(config: TeacherConfig, inputs: TeacherInputs) -> Plan:
    """What decides the result."""
    return plan_of("teacher", config, {})


def run(config: TeacherConfig, inputs: TeacherInputs, out: "Path | str", *, replace: bool = False) -> Stage:
    """Train a robust teacher from scratch into `out`."""
    from compress import training
    from compress.numerics import ranks
    from compress.stages.network_training import train_network

    make = functools.partial(train_network, "teacher", config, {})
    keep = training.kept(config)
    return ranks.build(
        out, plan_of("teacher", config, {}), make, lineage=lineage(config, {}), keep=keep, replace=replace
    )
