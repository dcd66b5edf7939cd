"""The teacher stage: a network trained without a teacher of its own."""

from dataclasses import dataclass
from pathlib import Path

from compress.config import TeacherConfig
from compress.folders import plan_of
from compress.training.train import train
from edge.core.artifact import Plan, Stage


@dataclass(frozen=True)
class TeacherInputs:
    """A teacher that is trained from scratch reads no stage."""


def plan(config: TeacherConfig, inputs: TeacherInputs) -> Plan:
    """What decides the result."""
    return plan_of("teacher", config, {})


def run(config: TeacherConfig, inputs: TeacherInputs, out: "Path | str", *, replace: bool = False) -> Stage:
    """Train a robust teacher from scratch into `out`."""
    return train("teacher", config, {}, out, replace=replace)
